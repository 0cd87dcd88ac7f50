"""Networks that outline the nucleus at a point: what they are shown, how they are trained, what comes out."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from training_cases import BC, cells, discs, stained

from benchmarks.segmenters import overlap_of_each
from softctm.cli import main
from softctm.datasets.image_registry import load_images
from softctm.errors import InputError, TrainingError, UsageError
from softctm.training.feeding import Draw
from softctm.training.loop import LoopConfig
from softctm.training.nuclei.augment import NucleiAugmentationConfig
from softctm.training.nuclei.data import TrainingImage
from softctm.training.point_guided import task as point_guided
from softctm.training.point_guided.data import GuidedCrops, inner_points, load_masked_images
from softctm.training.point_guided.run import PointGuidedRun
from softctm.training.point_guided.task import COMPACT, mask_loss
from softctm.training.segmenters import PointGuidedSegmenter

NUCLEI = cells((60, 60, BC), (90, 60, BC), (60, 100, BC), (100, 100, BC))
PLAIN = NucleiAugmentationConfig(crop=64, probability=0)
TINY = (
    "network.decoder_channels=16",
    "optimizer.batch=4",
    "augmentation.crop=32",
)


def image_of(radius: int = 9) -> TrainingImage:
    drawn = discs((160, 160), NUCLEI, radius)
    return TrainingImage("drawn/one", stained(drawn > 0), drawn, np.full(5, -1))


def write_masked(folder: Path, names: str = "abc") -> Path:
    """Images of MoNuSeg's layout: discs of 8 pixels of 0.25 µm."""
    for name in names:
        drawn = discs((128, 128), cells((40, 40, BC), (64, 40, BC), (80, 80, BC), (44, 84, BC)), 8)
        for place, pixels in (("images", stained(drawn > 0)), ("instances", drawn.astype(np.uint16))):
            (folder / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / place / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masked(tmp_path_factory.mktemp("masked"))


def words(data: Path, run: Path, *more: str) -> list[str]:
    settings = [word for setting in TINY for word in ("--set", setting)]
    command = ["train", "points", "--data", f"monuseg={data}", "--run", str(run), "--folds", "3"]
    return [*command, *settings, "--checkpoint-minutes", "0", *more]


def test_points_lie_in_their_nuclei_and_near_the_center() -> None:
    drawn = discs((160, 160), NUCLEI, 10)
    for seed in range(20):
        ids, rows, columns = inner_points(drawn, np.random.default_rng(seed))
        np.testing.assert_array_equal(ids, [1, 2, 3, 4])
        np.testing.assert_array_equal(drawn[rows, columns], ids)
        assert np.hypot(rows - NUCLEI.y, columns - NUCLEI.x).max() <= 0.4 * 10 + 1
    assert all(len(part) == 0 for part in inner_points(np.zeros((9, 9), int), np.random.default_rng(0)))


def test_points_of_a_crescent_lie_in_it() -> None:
    whole, hollow = (discs((80, 80), cells((x, 40, BC)), radius) for x, radius in ((40, 20), (46, 19)))
    crescent = np.where(hollow > 0, 0, whole)
    assert crescent[40, 40] == 0  # its center is outside
    for seed in range(20):
        _, rows, columns = inner_points(crescent, np.random.default_rng(seed))
        assert crescent[rows[0], columns[0]] == 1


def test_images_come_at_the_resolution_of_cells(masked: Path) -> None:
    images = load_masked_images({"monuseg": load_images("monuseg", masked)})
    assert [image.name for image in images] == ["monuseg/a", "monuseg/b", "monuseg/c"]
    assert images[0].image.shape == (160, 160, 3)  # 128 pixels of 0.25 µm
    area = np.bincount(images[0].instances.ravel())[1:]
    np.testing.assert_allclose(area, math.pi * 10**2, rtol=0.06)  # 8 pixels of 0.25 µm are 10 of 0.2


def test_datasets_without_masks_are_refused(tmp_path: Path) -> None:
    for place in ("images", "points"):
        (tmp_path / place).mkdir()
    Image.fromarray(np.zeros((50, 50, 3), np.uint8)).save(tmp_path / "images/a.png")
    (tmp_path / "points/a.csv").write_text("x,y,label\n5,6,1\n")
    with pytest.raises(UsageError, match="--data crchisto: has no instance masks of nuclei"):
        load_masked_images({"crchisto": load_images("crchisto", tmp_path)})


def test_a_crop_shows_a_nucleus_its_point_and_the_others() -> None:
    crops = GuidedCrops([image_of()], PLAIN)
    assert len(crops) == 4
    for patch in range(4):
        shown, mask = crops[Draw(3, 1, patch)]
        assert (shown.shape, mask.shape) == ((5, 64, 64), (1, 64, 64))
        own, others = shown[3], shown[4]
        assert own.nonzero().tolist() == [[32, 32]]
        assert mask[0, 32, 32] == 1
        assert abs(mask.sum() - math.pi * 9**2) < 20
        is_dark = shown[0] < 0.6
        assert is_dark[mask[0] > 0].float().mean() > 0.9
        # Points of nuclei that the crop's border cuts lie in the crop too; none is in this nucleus.
        rows, columns = others.nonzero().T
        assert len(rows) > 0 or patch >= 2  # the first two lie 30 pixels apart, the others 40
        assert is_dark[rows, columns].all()
        assert (mask[0, rows, columns] == 0).all()


def test_crops_follow_from_the_draw_alone() -> None:
    changing = NucleiAugmentationConfig(crop=64)
    first, second = (GuidedCrops([image_of()], changing, seed=7) for _ in range(2))
    for one, other in zip(first[Draw(5, 2, 1)], second[Draw(5, 2, 1)], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert not torch.equal(first[Draw(5, 2, 1)][0], first[Draw(6, 2, 1)][0])
    assert first.digest == second.digest != GuidedCrops([image_of(8)], changing).digest


def test_nuclei_near_the_border_are_left_out_and_small_datasets_drawn_more_often() -> None:
    one = image_of()
    assert len(GuidedCrops([one], replace(PLAIN, crop=96, scale=0.0))) == 4  # centers are 60 px from it
    with pytest.raises(InputError, match=r"no nucleus lies 80 pixels of 0\.2 µm or more from all borders"):
        len(GuidedCrops([one], replace(PLAIN, crop=128)))
    images = [one, *(replace(one, name=f"other/{k}") for k in range(4))]
    weights = GuidedCrops(images, PLAIN).weights
    assert weights.sum() == pytest.approx(1)
    assert weights[4:].sum() == pytest.approx(2 * weights[:4].sum())  # the root of four times as many


def test_the_loss_is_cross_entropy_and_dice_of_each_crop() -> None:
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    # All probabilities 0.5: overlap 0.5, Dice (2 · 0.5 + 1) / (2 + 1 + 1) = 0.5.
    assert mask_loss(torch.zeros(1, 1, 2, 2), mask).item() == pytest.approx(math.log(2) + 0.5)
    assert mask_loss(mask * 40 - 20, mask).item() == pytest.approx(0, abs=1e-6)
    both = mask_loss(torch.cat([torch.zeros(1, 1, 2, 2), mask * 40 - 20]), torch.cat([mask, mask]))
    assert both.item() == pytest.approx((math.log(2) + 0.5) / 2)


@pytest.fixture(scope="module")
def trained(masked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("points") / "run"
    assert main(words(masked, run, "--fold", "1")) == 0
    return run


def test_a_run_leaves_a_segmenter_of_a_fold(trained: Path) -> None:
    file = trained / "fold1" / "segmenter.onnx"
    facts = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert (facts["mpp"], facts["trained_on"]) == ("0.2", "monuseg (3 images)")
    assert facts["licenses"] == "CC-BY-NC-SA-4.0"
    assert sorted(json.loads((trained / "folds.json").read_text())["images"].values()) == [0, 1, 2]
    one = image_of()
    labels = PointGuidedSegmenter(file)(one.image, NUCLEI)
    assert labels.shape == (160, 160)
    assert labels.dtype == np.int32
    assert set(np.unique(labels)) <= {0, 1, 2, 3, 4}


def test_a_finished_run_is_kept_and_another_configuration_refused(
    trained: Path, masked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in (trained / "fold1").iterdir() if path.is_file()}
    config = json.loads((trained / "config.json").read_text())
    del config["config"]["optimizer"]["tissue_factor"]  # as before there was such a setting
    (trained / "config.json").write_text(json.dumps(config))
    assert main(words(masked, trained, "--fold", "1")) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert main(words(masked, trained, "--fold", "1", "--seed", "3")) == TrainingError.exit_code
    assert "of a run with another seed;" in capsys.readouterr().err
    assert main(words(masked, trained, "--fold", "7")) == UsageError.exit_code
    assert "--fold 7: there are folds 0 to 2" in capsys.readouterr().err


def test_a_run_that_was_stopped_goes_on_to_the_same_network(
    trained: Path, masked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(100))

    def interrupted(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return mask_loss(logits, mask)

    with monkeypatch.context() as patch:
        patch.setattr(point_guided, "mask_loss", interrupted)
        assert main(words(masked, tmp_path / "run", "--fold", "1")) == 130
    assert (tmp_path / "run" / "fold1" / "checkpoint.pt").exists()
    assert not (tmp_path / "run" / "fold1" / "segmenter.onnx").exists()
    assert main(words(masked, tmp_path / "run", "--fold", "1")) == 0
    for name in ("network.safetensors", "segmenter.onnx"):
        stopped, whole = ((folder / "fold1" / name).read_bytes() for folder in (tmp_path / "run", trained))
        assert stopped == whole


@pytest.mark.slow
def test_a_network_learns_to_split_nuclei_that_touch(tmp_path: Path) -> None:
    """Pairs of touching discs: the dark pixels alone do not tell where one ends."""
    random = np.random.default_rng(0)
    folder = tmp_path / "data"
    for name in "abcd":
        rows = [
            (x + int(random.integers(-3, 4)) + step, y + int(random.integers(-3, 4)), BC)
            for x in range(40, 200, 46)
            for y in range(40, 200, 40)
            for step in (0, 19)
        ]
        drawn = np.zeros((240, 240), np.int32)
        for number, row in enumerate(rows, start=1):
            drawn[(discs(drawn.shape, cells(row), 9) > 0) & (drawn == 0)] = number
        for place, pixels in (("images", stained(drawn > 0)), ("instances", drawn.astype(np.uint16))):
            (folder / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / place / f"{name}.png")
    config = replace(
        COMPACT,
        network=replace(COMPACT.network, decoder_channels=32),
        optimizer=replace(COMPACT.optimizer, epochs=12, encoder_factor=1.0, ema=0.9),
        augmentation=replace(COMPACT.augmentation, crop=64),
    )
    run = PointGuidedRun(tmp_path / "run", {"monuseg": load_images("monuseg", folder)}, config, LoopConfig())
    run.prepare(4, 0)
    segment = PointGuidedSegmenter(run.train(0))
    (held_out,) = [image for image, fold in zip(run.images, run.fold_of(), strict=True) if fold == 0]
    ids, y, x = inner_points(held_out.instances, np.random.default_rng(1))
    points = cells(*[(int(a), int(b), BC) for a, b in zip(x, y, strict=True)])
    overlap = overlap_of_each(segment(held_out.image, points), held_out.instances, ids.astype(np.int32))
    assert overlap.mean() > 0.8


def test_overlap_is_that_of_a_nucleus_with_the_mask_of_its_own_point() -> None:
    true = np.array([[5, 5, 0, 9], [5, 5, 0, 9]], np.int32)
    found = np.array([[1, 1, 1, 1], [0, 0, 2, 2]], np.int32)
    # Nucleus 5: 2 pixels in both, 4 + 4 − 2 in either; nucleus 9: 1 of 2 + 2 − 1.
    overlap = overlap_of_each(found, true, np.array([5, 9], np.int32))
    np.testing.assert_allclose(overlap, [2 / 6, 1 / 3])
    np.testing.assert_array_equal(overlap_of_each(np.zeros_like(true), true, np.array([5, 9], np.int32)), 0)
