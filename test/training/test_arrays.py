"""The training set as arrays: what they hold, and that a cache is never half-written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from training_cases import BC, TC, cells, discs, write_release

from softctm.datasets.ocelot import AnnotatedPair, load_release
from softctm.inference.tissue_context import upsampling_matrix
from softctm.training.arrays import (
    TrainingArrays,
    key,
    load_cells,
    load_tissue,
    shrink,
    tissue_context,
)
from softctm.training.config import TargetConfig
from softctm.training.segmenters import ClassicalSegmenter
from softctm.training.targets import circle_target, hard_target, soft_target

ROWS = [[(100, 200, BC), (300, 600, TC), (900, 901, TC)], []]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[AnnotatedPair]:
    return load_release(write_release(tmp_path_factory.mktemp("release"), ROWS))


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_shrinking_is_pytorchs_average_pooling(factor: int) -> None:
    planes = np.random.default_rng(0).integers(0, 256, (3, 16, 24)).astype(np.uint8)
    expected = functional.avg_pool2d(torch.from_numpy(planes).float(), factor).numpy()
    np.testing.assert_allclose(shrink(planes, factor), expected, rtol=1e-6)


def test_key_changes_with_what_an_array_is_made_from(pairs: list[AnnotatedPair]) -> None:
    keys = {key(pairs, 2), key(pairs, 4), key(pairs[:1], 2), key(pairs, 2, "soft"), key(pairs, "2")}
    assert len(keys) == 5
    assert key(pairs, 2) == key(list(pairs), 2)


@pytest.mark.parametrize("factor", [4, 16])
def test_tissue_arrays(pairs: list[AnnotatedPair], tmp_path: Path, factor: int) -> None:
    arrays, side = load_tissue(pairs, factor, tmp_path), 1024 // factor
    assert arrays.images.shape == (2, 3, side, side)
    assert arrays.targets.shape == (2, side, side)
    # Cancer on the left, background on the right; only the last row of all is unknown.
    assert (arrays.targets[0, :-1, : side // 2] == 1).all()
    assert (arrays.targets[0, :-1, side // 2 :] == 0).all()
    assert arrays.counts.tolist() == [[side * side / 2] * 2] * 2
    whole = pairs[1].tissue_patch().astype(float)
    block = whole[factor : 2 * factor, 3 * factor : 4 * factor].mean((0, 1))
    np.testing.assert_allclose(arrays.images[1, :, 1, 3], block, atol=0.51)
    image, labels = arrays.sample(0)
    assert (image.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert 0 <= image.min() <= image.max() <= 1


def test_unknown_tissue_becomes_minus_one(pairs: list[AnnotatedPair], tmp_path: Path) -> None:
    targets = load_tissue(pairs, 1, tmp_path).targets
    assert (targets[:, -1] == -1).all()
    assert (targets[:, :-1] >= 0).all()


@pytest.mark.parametrize("kind", ["circle", "hard", "soft"])
def test_cell_arrays(pairs: list[AnnotatedPair], tmp_path: Path, kind: str) -> None:
    target = TargetConfig(kind, sigma_um=2.0)  # type: ignore[arg-type]
    context = np.random.default_rng(0).random((2, 2, 256, 256)).astype(np.float16)
    arrays = load_cells(pairs, 4, target, ClassicalSegmenter(), context, tmp_path, processes=1)
    points = cells(*ROWS[0])
    nuclei = ClassicalSegmenter()(pairs[0].cell_patch(), points)
    full = {
        "circle": lambda: circle_target((1024, 1024), points, 1.4),
        "hard": lambda: hard_target(nuclei, points),
        "soft": lambda: soft_target(nuclei, points, 2.0),
    }[kind]()
    assert arrays.counts.tolist() == [[1, 2], [0, 0]]
    image, sample = arrays.sample(0)
    assert image.shape == (5, 256, 256)
    torch.testing.assert_close(image[3:], torch.from_numpy(context[0]).float())
    expected = functional.avg_pool2d(torch.from_numpy(full), 4)
    torch.testing.assert_close(sample, expected, atol=1.01 / 255, rtol=0)
    torch.testing.assert_close(sample.sum(0), torch.ones(256, 256))
    assert sample[1, 200 // 4, 100 // 4] > 0.5
    assert sample[2, 600 // 4, 300 // 4] > 0.5
    empty = arrays.sample(1)[1]
    assert (empty[0] == 1).all()


def test_nuclei_of_the_release_are_segmented_not_replaced_by_discs(
    pairs: list[AnnotatedPair],
) -> None:
    points = cells(*ROWS[0])
    nuclei = ClassicalSegmenter()(pairs[0].cell_patch(), points)
    drawn = discs((1024, 1024), points, 12)
    assert ((nuclei > 0) & (drawn > 0)).sum() / ((nuclei > 0) | (drawn > 0)).sum() > 0.85


@pytest.mark.parametrize("factor", [1, 2, 8])
def test_context_is_what_the_detector_would_give_at_the_networks_resolution(factor: int) -> None:
    tissue = np.random.default_rng(0).random((2, 1024, 1024)).astype(np.float32)
    found = tissue_context(tissue, 300, 150, factor)
    weights = upsampling_matrix(256, 4)
    full = weights @ tissue[:, 150 : 150 + 256, 300 : 300 + 256] @ weights.T
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, shrink(full, factor), atol=2e-3)


def test_arrays_are_made_anew_when_an_annotation_or_image_is_corrected(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = load_release(write_release(tmp_path / "release", ROWS))
    target = TargetConfig("circle")

    def load() -> TrainingArrays:
        caplog.clear()
        return load_cells(pairs, 4, target, ClassicalSegmenter(), None, tmp_path / "cache", processes=1)

    first = load()
    before = np.array(first.targets)
    assert load().digest == first.digest
    assert not caplog.messages
    pairs[0].cell_csv.write_text("600,100,1\n")
    second = load()
    assert any("cell-targets" in text and "001.csv changed since" in text for text in caplog.messages)
    assert second.targets[0, 0, 100 // 4, 600 // 4] > 200
    assert before[0, 0, 100 // 4, 600 // 4] == 0
    assert second.digest != first.digest
    white = np.full((1024, 1024, 3), 255, np.uint8)
    Image.fromarray(white).save(pairs[1].cell_image, quality=95)
    assert (load().images[1] == 255).all()
    # The same IDs of another folder.
    other = load_release(write_release(tmp_path / "other", [ROWS[1], ROWS[0]]))
    moved = load_cells(other, 4, target, ClassicalSegmenter(), None, tmp_path / "cache", processes=1)
    assert moved.counts.tolist() == [[0, 0], [1, 2]]
    assert (moved.targets[0] == 0).all()


def test_what_is_learned_does_not_depend_on_where_the_data_lie(tmp_path: Path) -> None:
    digests = set()
    for name in ("here", "there"):
        pairs = load_release(write_release(tmp_path / name, ROWS))
        digests.add(load_tissue(pairs, 16, tmp_path / f"{name}-cache").digest)
    assert len(digests) == 1


def test_without_shared_memory_targets_are_rendered_in_this_process(
    pairs: list[AnnotatedPair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softctm.training.feeding.SHARED_MEMORY", tmp_path / "nowhere")
    monkeypatch.setattr("softctm.training.arrays.ProcessPoolExecutor", None)
    arrays = load_cells(pairs, 4, TargetConfig("circle"), ClassicalSegmenter(), None, tmp_path)
    assert arrays.targets.shape == (2, 2, 256, 256)
