from __future__ import annotations

import math

import numpy as np
import pytest
from evaluation_cases import cells, write_release
from PIL import Image

from softctm.datasets.ocelot import tissue_labels_of
from softctm.errors import InputError
from softctm.evaluation.bootstrap import Bootstrap
from softctm.evaluation.tissue import (
    find_tissue_maps,
    read_tissue_map,
    tissue_counts,
    tissue_scores,
)
from softctm.evaluation.truth import load_truth


def test_counts_by_hand():
    annotated = np.array([[1, 1, 1, 2], [2, 2, 255, 255]], np.uint8)
    predicted = np.array([[1, 1, 2, 2], [1, 255, 1, 2]], np.uint8)
    assert tissue_counts(predicted, annotated).tolist() == [[2, 1, 1], [1, 1, 2]]


def test_counts_agree_with_sets_of_pixels():
    random = np.random.default_rng(0)
    annotated, predicted = (random.choice([1, 2, 255], (2, 40, 50)).astype(np.uint8) for _ in range(2))
    for a, p in zip(annotated, predicted, strict=True):
        known = {tuple(i) for i in np.argwhere(a != 255).tolist()}
        for row, value in zip(tissue_counts(p, a), (1, 2), strict=True):
            actual = {tuple(i) for i in np.argwhere(a == value).tolist()}
            claimed = {tuple(i) for i in np.argwhere(p == value).tolist()} & known
            assert row.tolist() == [len(actual & claimed), len(claimed - actual), len(actual - claimed)]


def test_probabilities_become_labels():
    probability = np.zeros((3, 1, 4))
    probability[:, 0] = [[0.8, 0.1, 0.1, 0.5], [0.1, 0.8, 0.1, 0.5], [0.1, 0.1, 0.8, 0.0]]
    assert tissue_labels_of(probability).tolist() == [[1, 2, 255, 1]]
    assert tissue_labels_of(probability[:2]).tolist() == [[1, 2, 1, 1]]


def release(tmp_path, organs):
    return load_truth(write_release(tmp_path / "release", [cells()] * len(organs), organs))


def test_pooled_by_organ_from_both_kinds_of_map(tmp_path):
    # annotated: 200 columns of cancer area, 100 of background, the rest unknown
    truth = release(tmp_path, ["kidney", "kidney", "liver"])
    maps = tmp_path / "maps"
    maps.mkdir()
    label = np.full((1024, 1024), 2, np.uint8)
    label[:, 250:] = 1
    Image.fromarray(label).save(maps / "001.png")
    probability = np.zeros((2, 1024, 1024), np.float32)
    probability[0] = 1  # all background
    np.save(maps / "image_1.npy", probability)
    Image.fromarray(label).save(maps / "image_2.png")
    all_, kidney, liver = tissue_scores(find_tissue_maps(maps, truth), truth, Bootstrap(3, 200))
    assert [part.name for part in (all_, kidney, liver)] == ["all", "kidney", "liver"]
    assert (all_.pairs, kidney.pairs, liver.pairs) == (3, 2, 1)
    assert (liver.counts // 1024).tolist() == [[50, 0, 50], [200, 50, 0]]
    assert (kidney.counts // 1024).tolist() == [[150, 200, 50], [200, 50, 200]]
    value = {name: figure.value for name, figure in liver.figures.items()}
    assert value["iou_background"] == pytest.approx(50 / 100)
    assert value["iou_cancer"] == pytest.approx(200 / 250)
    assert value["f1_cancer"] == pytest.approx(400 / 450)
    assert value["mean_f1"] == pytest.approx((400 / 450 + 100 / 150) / 2)
    assert value["mean_iou"] == pytest.approx(0.65)
    assert value["accuracy"] == pytest.approx(250 / 300)
    assert kidney.figures["accuracy"].value == pytest.approx(350 / 600)
    assert not math.isnan(all_.figures["mean_f1"].low)


def test_pairs_without_a_map_are_left_out(tmp_path):
    truth = release(tmp_path, ["kidney", "liver"])
    Image.fromarray(np.full((1024, 1024), 2, np.uint8)).save(tmp_path / "002.png")
    parts = tissue_scores(find_tissue_maps(tmp_path, truth), truth, Bootstrap(2, 20))
    assert [(part.name, part.pairs) for part in parts] == [("all", 1), ("liver", 1)]


def test_maps_that_are_not_there_or_there_twice(tmp_path):
    truth = release(tmp_path, ["kidney"])
    with pytest.raises(InputError, match=r"no tissue map.*001\.png"):
        find_tissue_maps(tmp_path, truth)
    for name in ("001.png", "image_0.npy"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"001\.png and image_0\.npy"):
        find_tissue_maps(tmp_path, truth)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((1024, 1024), np.uint8), r"found \[0\]"),
        (np.ones((512, 512), np.uint8), "8-bit image of 1024"),
        (np.ones((1024, 1024, 3), np.uint8), "one channel"),
    ],
)
def test_label_images_of_another_form_are_refused(tmp_path, array, message):
    path = tmp_path / "001.png"
    Image.fromarray(array).save(path)
    with pytest.raises(InputError, match=message):
        read_tissue_map(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 1024, 1024), np.float32), "must hold probabilities"),
        (np.zeros((2, 1024, 1024), np.uint8), "must hold probabilities"),
        (np.full((2, 1024, 1024), np.nan, np.float32), "NaN"),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path, array, message):
    path = tmp_path / "001.npy"
    np.save(path, array)
    with pytest.raises(InputError, match=message):
        read_tissue_map(path)


@pytest.mark.parametrize("name", ["001.png", "001.npy"])
def test_broken_maps_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"no map")
    with pytest.raises(InputError, match=name):
        read_tissue_map(tmp_path / name)


def test_pickles_are_never_opened(tmp_path):
    path = tmp_path / "001.npy"
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read"):
        read_tissue_map(path)


def test_maps_that_are_no_maps_are_named(tmp_path):
    np.savez(tmp_path / "archive.npz", np.zeros(3))
    (tmp_path / "archive.npz").rename(tmp_path / "001.npy")
    with pytest.raises(InputError, match=r"001\.npy: is an archive of arrays"):
        read_tissue_map(tmp_path / "001.npy")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "001.png")
    with pytest.raises(InputError, match=r"001\.png: cannot be read as a label image \(Image size"):
        read_tissue_map(tmp_path / "001.png")
