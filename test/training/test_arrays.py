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
from softctm.errors import InputError
from softctm.inference.tissue_context import upsampling_matrix
from softctm.training.arrays import (
    cached,
    key,
    load_cells,
    load_tissue,
    read_rgb,
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


def test_cache_is_built_once(tmp_path: Path) -> None:
    built = []

    def build() -> np.ndarray:
        built.append(1)
        return np.arange(6).reshape(2, 3)

    for _ in range(3):
        np.testing.assert_array_equal(cached(tmp_path / "new" / "array.npy", build), [[0, 1, 2], [3, 4, 5]])
    assert len(built) == 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["array.npy"]


def test_building_that_fails_leaves_no_cache(tmp_path: Path) -> None:
    def fail() -> np.ndarray:
        raise InputError("one bad patch")

    with pytest.raises(InputError):
        cached(tmp_path / "array.npy", fail)
    np.testing.assert_array_equal(cached(tmp_path / "array.npy", lambda: np.ones(2)), [1, 1])


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
    whole = read_rgb(pairs[1].tissue_image).astype(float)
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
    nuclei = ClassicalSegmenter()(read_rgb(pairs[0].cell_image), points)
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
    nuclei = ClassicalSegmenter()(read_rgb(pairs[0].cell_image), points)
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


def test_unreadable_and_odd_patches_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(InputError, match=r"text\.jpg: cannot be read as an image"):
        read_rgb(tmp_path / "text.jpg")
    Image.new("RGB", (640, 480)).save(tmp_path / "small.jpg")
    with pytest.raises(InputError, match=r"small\.jpg: must be 1024 × 1024 pixels, not 640 × 480"):
        read_rgb(tmp_path / "small.jpg")
