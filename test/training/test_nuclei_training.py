"""What a nuclei network learns and how: targets, losses, oversampling, augmentation, a whole run."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from drawn_nuclei import disks, drawn, write_dataset
from safetensors.torch import load_file
from scipy import ndimage
from torch import nn

from softctm.cli import main
from softctm.commands import train_nuclei
from softctm.errors import TrainingError, UsageError
from softctm.jobs.nuclei.validation import predict_out_of_fold
from softctm.networks.cellvit import CellViT, CellViTSpec
from softctm.networks.nuclei_maps import stacked
from softctm.networks.vit_weights import load_vit
from softctm.postprocessing.hover import separate_nuclei
from softctm.training.feeding import Draw
from softctm.training.nuclei.augment import NucleiAugmentationConfig, augment_nuclei
from softctm.training.nuclei.config import NUCLEI_PRESETS, nuclei_config_from_json
from softctm.training.nuclei.data import NucleiPatches, TrainingImage
from softctm.training.nuclei.folds import nuclei_folds
from softctm.training.nuclei.losses import LossWeights, dice, focal_tversky, gradient_error, nuclei_loss
from softctm.training.nuclei.sampling import oversampling_weights, type_weights
from softctm.training.nuclei.targets import horizontal_vertical, nuclei_target
from softctm.training.nuclei.task import build_nuclei_network, train_nuclei_network


def test_distances_against_each_nucleus_by_itself() -> None:
    instances = disks()
    hv = horizontal_vertical(instances)
    assert (hv[:, instances == 0] == 0).all()
    for number in range(1, 10):
        rows, columns = np.nonzero(instances == number)
        for plane, position in ((hv[0], columns), (hv[1], rows)):
            distance = position - position.mean()
            expected = np.where(distance < 0, distance / -distance.min(), distance / distance.max())
            np.testing.assert_allclose(plane[rows, columns], expected, atol=1e-6)


def test_a_nucleus_of_one_pixel_is_its_own_center() -> None:
    hv = horizontal_vertical(np.eye(3, dtype=np.int32) * np.array([1, 2, 3]))
    assert (hv == 0).all()
    assert (horizontal_vertical(np.zeros((4, 5), np.int32)) == 0).all()


def test_targets_lead_back_to_the_nuclei() -> None:
    instances = disks()
    target = nuclei_target(instances, np.array([0, *[2] * 9]), tissue=4)
    found = separate_nuclei(target[0], target[1], target[2], magnification=40)
    assert found.max() == 9
    for number in range(1, 10):
        ours = found == np.bincount(found[instances == number]).argmax()
        overlap = (ours & (instances == number)).sum() / (ours | (instances == number)).sum()
        assert overlap > 0.9
    assert set(np.unique(target[3])) == {0, 2}
    assert (target[4] == 4).all()


def test_overlap_losses_by_hand() -> None:
    probability, truth = torch.zeros(1, 1, 10, 10), torch.zeros(1, 1, 10, 10)
    probability[..., :5] = 1  # 50 pixels found, 30 true, 20 of them found: TP 20, FN 10, FP 30
    truth[..., 3:6] = 1
    assert dice(probability, truth).item() == pytest.approx(1 - 41 / 81)
    index = 21 / (20 + 0.7 * 10 + 0.3 * 30 + 1)
    assert focal_tversky(probability, truth).item() == pytest.approx((1 - index) ** 0.75)
    assert dice(truth, truth).item() == pytest.approx(0)


def test_gradient_error_sees_slopes_in_their_own_direction() -> None:
    ramp = torch.arange(20.0).expand(1, 1, 20, 20) * 0.1
    flat, inside = torch.zeros(1, 1, 20, 20), torch.zeros(1, 20, 20)
    inside[:, 5:15, 5:15] = 1
    # The kernel's answer to a ramp of slope s: s times the sum of right² / distance² over its 5 × 5 places.
    places = [(y, x) for y in range(-2, 3) for x in range(-2, 3) if (y, x) != (0, 0)]
    answer = 0.1 * sum(x * x / (y * y + x * x) for y, x in places)
    zero = torch.zeros(1, 2, 20, 20)
    assert gradient_error(torch.cat([ramp, flat], 1), zero, inside).item() == pytest.approx(answer**2 / 2)
    assert gradient_error(torch.cat([flat, ramp], 1), zero, inside).item() == pytest.approx(0, abs=1e-9)
    assert gradient_error(torch.cat([flat, ramp.mT], 1), zero, inside).item() == pytest.approx(answer**2 / 2)


def test_perfect_maps_cost_next_to_nothing_and_unknown_types_nothing() -> None:
    target = torch.from_numpy(nuclei_target(disks(), np.array([0, *[1, 2] * 4, 1])))[None]
    binary = torch.nn.functional.one_hot(target[:, 0].long(), 2).movedim(-1, 1) * 40.0
    types = torch.nn.functional.one_hot(target[:, 3].long(), 3).movedim(-1, 1) * 40.0
    perfect = torch.cat([binary, target[:, 1:3], types], 1)
    assert nuclei_loss(perfect, target, LossWeights()).item() < 1e-3
    wrong = perfect.clone()
    wrong[:, 5:7] = wrong[:, 5:7].flip(1)  # the two types exchanged
    assert nuclei_loss(wrong, target, LossWeights()).item() > 1
    untyped = target.clone()
    untyped[:, 3][untyped[:, 0] > 0] = -1
    assert nuclei_loss(wrong, untyped, LossWeights()).item() < 1e-3
    background = perfect.clone()
    background[:, 4:] = background[:, 4:].flip(1)
    assert nuclei_loss(background, untyped, LossWeights()).item() > 0.1  # where there is no nucleus is known


def test_pixels_of_types_weigh_as_given_and_absent_types_pull_nothing() -> None:
    """Logits that say the same everywhere: what they cost can be worked out by hand."""
    target = torch.zeros(1, 5, 10, 10)
    target[:, 0, :3], target[:, 3, :2], target[:, 3, 2] = 1, 1, 2  # 70 of background, 20 of 1, 10 of 2
    maps = torch.zeros(1, 8, 10, 10)
    only = LossWeights(0, 0, 0, 0, 0, 0, 0, 1)
    maps[:, 4:] = torch.tensor([0.5, 0.3, 0.1, 0.1]).log()[:, None, None]
    plain = -(70 * np.log(0.5) + 20 * np.log(0.3) + 10 * np.log(0.1)) / 100
    assert nuclei_loss(maps, target, only).item() == pytest.approx(plain, rel=1e-5)
    weighted = -(70 * np.log(0.5) + 2 * 20 * np.log(0.3) + 5 * 10 * np.log(0.1)) / (70 + 40 + 50)
    given = nuclei_loss(maps, target, only, type_weights=torch.tensor([1.0, 2.0, 5.0, 9.0]))
    assert given.item() == pytest.approx(weighted, rel=1e-5)
    overlap = LossWeights(0, 0, 0, 0, 0, 0, 1, 0)
    by_type = [1 - (2 * n * p + 1) / (100 * p + n + 1) for n, p in ((70, 0.5), (20, 0.3), (10, 0.1))]
    assert nuclei_loss(maps, target, overlap).item() == pytest.approx(np.mean(by_type), rel=1e-5)


def test_weights_of_types_by_hand() -> None:
    instances = np.zeros((10, 10), np.int32)
    instances[:2], instances[2] = 1, 2  # 70, 20 and 10 pixels
    image = TrainingImage("a", np.zeros((10, 10, 3), np.uint8), instances, np.array([0, 1, 2]))
    untyped = replace(image, type_of=np.array([0, -1, -1]))
    weights = type_weights([image, untyped], 4, 0.5)
    share = np.array([0.7, 0.2, 0.1])
    expected = share**-0.5 / (share * share**-0.5).sum()
    np.testing.assert_allclose(weights, [*expected, 1], rtol=1e-5)
    np.testing.assert_allclose(type_weights([image], 3, 1.0) * share, 1 / 3, rtol=1e-5)
    np.testing.assert_array_equal(type_weights([image], 3, 0.0), 1)


def test_tissue_counts_where_it_is_known() -> None:
    maps, weights = torch.zeros(2, 7, 8, 8), LossWeights()
    target = torch.zeros(2, 5, 8, 8)
    target[0, 4], target[1, 4] = 2, -1
    without = nuclei_loss(maps, target, weights)
    logits = torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]])
    more = nuclei_loss(maps, target, weights, logits) - without
    assert more.item() == pytest.approx(0.1 * np.log(3) / 2, rel=1e-4)


def test_oversampling_by_the_papers_formula() -> None:
    present = np.array([[1, 0], [1, 0], [1, 0], [1, 1]], bool)
    tissue = np.array([0, 0, 0, 1])
    weights = oversampling_weights(present, tissue, 0.85)
    by_tissue = np.array([4 / (0.85 * 3 + 0.15 * 4)] * 3 + [4 / (0.85 * 1 + 0.15 * 4)])
    common, rare = 5 / (0.85 * 4 + 0.15 * 5), 5 / (0.85 * 1 + 0.15 * 5)
    by_type = 0.15 + 0.85 * np.array([common, common, common, common + rare])
    expected = by_tissue / by_tissue.max() + by_type / by_type.max()
    np.testing.assert_allclose(weights, expected / expected.sum())
    np.testing.assert_allclose(oversampling_weights(present, tissue, 0.0), 0.25)
    assert np.isfinite(oversampling_weights(np.zeros((3, 2), bool), tissue[:3], 1.0)).all()
    absent = np.column_stack((present, np.zeros(4, bool)))
    np.testing.assert_allclose(
        oversampling_weights(absent, tissue, 1.0), oversampling_weights(present, tissue, 1.0)
    )


def test_geometry_moves_image_and_nuclei_alike() -> None:
    """The image shows the instance numbers: after any change of geometry they still lie on each other."""
    instances = disks()
    shown = np.repeat((instances * 20).astype(np.uint8)[..., None], 3, 2)
    config = NucleiAugmentationConfig(
        crop=64, scale=0.3, rotation=45, elastic_px=3, brightness=0, contrast=0, stain=0, blur_px=0, noise=0,
        probability=1.0,
    )  # fmt: skip
    for seed in range(8):
        rng = np.random.default_rng(seed)
        for downsampling in (1, 2):
            image, ids = augment_nuclei(shown, instances, (40.0, 55.0), config, rng, downsampling)
            assert image.shape == (3, 64 // downsampling, 64 // downsampling)
            seen = image[0].numpy() * 255 / 20
            for number in np.unique(ids):
                inner = ndimage.binary_erosion(ids == number, iterations=2)
                np.testing.assert_allclose(seen[inner], number % (instances.max() + 1), atol=0.05)


def test_without_changes_a_crop_is_the_image_itself_but_for_flips_and_turns() -> None:
    image = drawn("a", 0)
    config = NucleiAugmentationConfig(crop=32, probability=0.0)
    found = set()
    for seed in range(40):
        crop, _ = augment_nuclei(
            image.image, image.instances, (47.5, 47.5), config, np.random.default_rng(seed)
        )
        pixels = np.round(crop.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        plain = image.image[32:64, 32:64]
        ways = [np.rot90(flipped, turns) for flipped in (plain, plain[:, ::-1]) for turns in range(4)]
        found.add(next(i for i, way in enumerate(ways) if np.abs(way.astype(int) - pixels).max() <= 1))
    assert found == set(range(8))


def test_the_mirror_image_of_a_nucleus_beyond_the_border_is_another_one() -> None:
    instances = np.zeros((96, 96), np.int32)
    instances[30:40, 4:12], instances[60:70, 0:8] = 1, 2  # beside the left border, and at it
    image = np.zeros((96, 96, 3), np.uint8)
    config = NucleiAugmentationConfig(crop=64, probability=0.0)
    _, ids = augment_nuclei(image, instances, (48.0, 6.0), config, np.random.default_rng(0))
    sizes = dict(zip(*np.unique(ids, return_counts=True), strict=True))
    assert sizes.keys() == {0, 1, 2, 1 + 3}
    assert (sizes[1], sizes[4], sizes[2]) == (80, 80, 160)  # the second one and its image are one shape
    target = nuclei_target(ids, np.array([0, 5, 7]))
    assert set(np.unique(target[3][(ids == 1) | (ids == 4)])) == {5}
    for number in sizes.keys() - {0}:
        inside = target[1:3][:, ids == number]
        np.testing.assert_allclose([inside.min(1), inside.max(1)], [[-1, -1], [1, 1]], atol=1e-6)


def test_every_change_of_look_keeps_values_and_shape() -> None:
    image = drawn("a", 0)
    config = NucleiAugmentationConfig(
        crop=48, shrink=0.5, zoom_blur=0.2, superpixels=1.0, stain=0.3, noise=0.1, probability=1.0
    )
    rng = np.random.default_rng(0)
    crop, ids = augment_nuclei(image.image, image.instances, (5.0, 90.0), config, rng)
    assert crop.shape == (3, 48, 48)
    assert ids.shape == (48, 48)
    assert crop.isfinite().all()
    assert 0 <= crop.min() < crop.max() <= 1


def test_patches_cover_images_of_any_size_and_depend_on_the_draw_alone() -> None:
    small = replace(drawn("a", 0), instances=disks(side=40), image=np.zeros((40, 40, 3), np.uint8))
    patches = NucleiPatches([drawn("b", 1), small], 3, NucleiAugmentationConfig(crop=64), seed=3)
    assert patches.corners == [(0, 0, 0), (0, 0, 32), (0, 32, 0), (0, 32, 32), (1, 0, 0)]
    assert patches.present[:4].all()
    for patch in range(5):
        first, again = patches[Draw(7, 1, patch)], patches[Draw(7, 1, patch)]
        assert first[0].shape == (3, 64, 64)
        assert first[1].shape == (5, 64, 64)
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])
        assert not torch.equal(first[0], patches[Draw(7, 2, patch)][0])


def test_folds_keep_patients_together_and_spread_types() -> None:
    images = [drawn(f"typed/{i}", i) for i in range(10)]
    images += [drawn(f"plain/TCGA-AA-000{i // 2}-slide{i}", 20 + i, typed=False) for i in range(10)]
    folds = nuclei_folds(images, 3, 5, 0)
    assert folds.keys() == {image.name for image in images}
    for i in range(0, 10, 2):
        assert folds[images[10 + i].name] == folds[images[11 + i].name]
    for source in ("typed", "plain"):
        counts = np.bincount([fold for name, fold in folds.items() if name.startswith(source)], minlength=5)
        assert counts.tolist() == [2] * 5


def test_presets_survive_json() -> None:
    from dataclasses import asdict

    for config in NUCLEI_PRESETS.values():
        assert nuclei_config_from_json(json.loads(json.dumps(asdict(config)))) == config


def test_weights_of_dino_and_sam_fill_the_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = CellViT(CellViTSpec("256")).encoder
    weights = {f"module.backbone.{name}": value for name, value in source.state_dict().items()}
    torch.save({"teacher": weights, "student": {}, "epoch": 3}, tmp_path / "vits16.pth")
    torch.manual_seed(1)
    encoder = CellViT(CellViTSpec("256")).encoder
    head = encoder.head.weight.clone()
    load_vit(encoder, tmp_path / "vits16.pth")
    assert torch.equal(encoder.blocks[3].mlp.fc1.weight, source.blocks[3].mlp.fc1.weight)
    assert torch.equal(encoder.head.weight, head)


TINY = replace(
    NUCLEI_PRESETS["compact"],
    optimizer=replace(NUCLEI_PRESETS["compact"].optimizer, epochs=20, batch=4, encoder_factor=1.0),
    augmentation=NucleiAugmentationConfig(crop=64, scale=0.1),
    network=replace(NUCLEI_PRESETS["compact"].network, decoder_channels=32, downsampling=1),
)


@pytest.mark.slow
def test_a_network_learns_and_resumes(tmp_path: Path) -> None:
    from softctm.training.loop import LoopConfig

    images = [drawn(str(i), i, typed=i % 3 > 0) for i in range(6)]
    loop = LoopConfig(checkpoint_minutes=0, validate_epochs=5, bfloat16=False)

    def made(_: object) -> nn.Module:
        return build_nuclei_network(TINY, 3, 0)

    network = train_nuclei_network(TINY, images[:5], images[5:], 3, 0, loop, tmp_path, made)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert float(rows[-1]["validation_dice"]) > 0.85
    with torch.inference_mode():
        pixels = torch.from_numpy(images[5].image).permute(2, 0, 1)[None].float() / 255
        maps, _ = stacked(network(pixels))
    inside = images[5].instances > 0
    right = maps[0, 4:].argmax(0).numpy() == images[5].type_of[images[5].instances]
    assert right[inside].mean() > 0.8
    again = train_nuclei_network(TINY, images[:5], images[5:], 3, 0, loop, tmp_path, made)
    with torch.inference_mode():
        torch.testing.assert_close(stacked(again(pixels))[0], maps, atol=1e-4, rtol=1e-4)
    with pytest.raises(TrainingError, match="another configuration"):
        train_nuclei_network(TINY, images[:5], images[5:], 4, 0, loop, tmp_path, made)


@pytest.mark.slow
def test_cellvit_learns_with_its_encoder_frozen_first(tmp_path: Path) -> None:
    from softctm.training.loop import LoopConfig

    config = replace(
        NUCLEI_PRESETS["cellvit-256"],
        optimizer=replace(NUCLEI_PRESETS["cellvit-256"].optimizer, epochs=2, batch=2),
        augmentation=NucleiAugmentationConfig(crop=32),
        frozen_epochs=1,
    )
    image = replace(drawn("a", 0, tissue=0), instances=disks(side=48), image=drawn("a", 0).image[:48, :48])
    torch.manual_seed(0)
    start = CellViT(CellViTSpec("256", 3, 1)).encoder.state_dict()
    torch.save(start, tmp_path / "encoder.pth")
    loop = LoopConfig(bfloat16=False)
    run = tmp_path / "run"
    encoder = str(tmp_path / "encoder.pth")
    train_nuclei_network(
        config, [image], [], 3, 1, loop, run, lambda _: build_nuclei_network(config, 3, 1, encoder)
    )
    frozen = torch.load(run / "frozen_encoder" / "checkpoint.pt", weights_only=True)["network"]
    trained = load_file(run / "network.safetensors")
    name = "blocks.0.attn.qkv.weight"
    assert torch.equal(frozen[f"network.encoder.{name}"], start[name])
    assert not torch.equal(trained[f"network.encoder.{name}"], start[name])
    head = "network.hv_map_decoder.decoder0_header.2.weight"
    assert not torch.equal(trained[head], frozen[head])
    # The tissue's head lies on the encoder and is none of it: it has no pretrained weights to keep.
    assert not torch.equal(frozen["network.encoder.head.weight"], start["head.weight"])


def test_a_fold_that_a_run_does_not_have_is_named(tmp_path: Path) -> None:
    run: Any = SimpleNamespace(types=["background"], fold_of=lambda: [0, 1, 1])
    with pytest.raises(UsageError, match="--fold 7: the run's folds are 0, 1"):
        predict_out_of_fold(run, tmp_path / "out", [7])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_commands_from_data_to_scores_and_model(tmp_path: Path) -> None:
    data = [tmp_path / "typed", tmp_path / "plain"]
    write_dataset(data[0], [drawn(str(i), i) for i in range(4)], typed=True)
    write_dataset(data[1], [drawn(str(i), 10 + i) for i in range(2)], typed=False)
    common = ["--data", *map(str, data), "--run", str(tmp_path / "run")]
    tiny = ["optimizer.epochs=2", "optimizer.batch=2", "augmentation.crop=64", "network.decoder_channels=32"]
    settings = [word for setting in tiny for word in ("--set", setting)]
    train = ["train", "nuclei", *common, *settings, "--folds", "2", "--validate-epochs", "0"]
    assert main(train) == 0
    assert main([*train, "--all-images"]) == 0
    assert main([*train, "--fold", "7"]) == 2
    assert main([*train, "--set", "oversampling=0.5"]) == 9
    output, model = tmp_path / "scores", tmp_path / "model"
    assert main(["validate", "nuclei", *common, "--output", str(output)]) == 0
    assert len(list(output.glob("typed/*/instances.tif"))) == 4
    assert len(list(output.glob("plain/*/nuclei.csv"))) == 2
    part = tmp_path / "part"
    assert main(["validate", "nuclei", *common, "--output", str(part), "--fold", "1"]) == 0
    fold_of = json.loads((tmp_path / "run/folds.json").read_text())["images"]
    held_out = {name for name, fold in fold_of.items() if fold == 1}
    assert {str(path.parent.relative_to(part)) for path in part.glob("*/*/nuclei.csv")} == held_out
    scored = json.loads((part / "typed_scores/evaluation.json").read_text())["images"]
    assert {f"typed/{image['name']}" for image in scored} == {n for n in held_out if n.startswith("typed")}
    export = ["export", "nuclei", *common, "--output", str(model), "--name", "n", "--license", "mine"]
    assert main([*export, "--size", "128"]) == 0
    manifest = json.loads((model / "model.json").read_text())
    stage = manifest["stages"]["nuclei"]
    assert stage["heads"][2]["classes"] == ["background", "a", "b"]
    assert [entry["files"]["float32"]["path"] for entry in stage["networks"]] == ["nuclei_all.onnx"]
    assert sorted(path.name for path in model.iterdir()) == ["model.json", "nuclei_all.onnx"]


def test_the_commands_presets_are_those_that_there_are() -> None:
    assert set(train_nuclei._PRESETS) == set(NUCLEI_PRESETS)
