from __future__ import annotations

import pytest
from evaluation_cases import BC, TC, cells, document, write_json, write_release

from softctm.datasets.patients import PatientKey
from softctm.errors import InputError, UsageError
from softctm.evaluation.predictions import FormatError
from softctm.evaluation.truth import load_truth

PAIRS = [cells((1, 2, BC), (3, 4, TC)), cells(), cells((5, 6, TC))]


def test_release_counts_the_sorted_ids_of_the_subset(tmp_path):
    truth = load_truth(write_release(tmp_path, PAIRS, ["kidney", "bladder", "kidney"]))
    assert truth.names == ["001", "002", "003"]
    assert [points.x.tolist() for points in truth.points] == [[1, 3], [], [5]]
    assert [pair.organ for pair in truth.pairs] == ["kidney", "bladder", "kidney"]
    assert truth.organs == ["bladder", "kidney"]
    assert all(pair.has_tissue for pair in truth.pairs)


def test_ids_choose_and_order(tmp_path):
    truth = load_truth(write_release(tmp_path, PAIRS), ids=["003", "001"])
    assert truth.names == ["003", "001"]
    assert truth.points[0].x.tolist() == [5]


@pytest.mark.parametrize(
    ("ids", "message"), [(["004", "001"], "no pair 004"), (["001", "001"], "twice"), ([], "empty")]
)
def test_ids_that_do_not_fit_are_refused(tmp_path, ids, message):
    with pytest.raises(UsageError, match=message):
        load_truth(write_release(tmp_path, PAIRS), ids=ids)


def test_of_several_subsets_one_must_be_chosen(tmp_path):
    write_release(tmp_path, PAIRS, subset="val")
    write_release(tmp_path, PAIRS[:1], subset="train")
    with pytest.raises(UsageError, match=r"train, val; choose one with --subset"):
        load_truth(tmp_path)
    assert load_truth(tmp_path, subset="train").names == ["001"]


def test_annotations_that_the_metadata_do_not_list_are_refused(tmp_path):
    write_release(tmp_path, PAIRS)
    (tmp_path / "annotations/train/cell/000.csv").write_text("1,1,1\n")
    with pytest.raises(InputError, match=r"annotated but not in metadata\.json of 'train': 000;"):
        load_truth(tmp_path)


def test_images_that_count_differently_from_the_metadata_are_refused(tmp_path):
    write_release(tmp_path, PAIRS)
    for kind in ("cell", "tissue"):
        folder = tmp_path / "images/train" / kind
        folder.mkdir(parents=True)
        for name in ("001", "002", "003"):
            (folder / f"{name}.jpg").touch()
    assert len(load_truth(tmp_path)) == 3
    (tmp_path / "images/train/cell/004.jpg").touch()
    with pytest.raises(InputError, match=r"in the images but not in metadata\.json of 'train': 004;"):
        load_truth(tmp_path)
    for path in tmp_path.glob("images/train/*/*.jpg"):
        if path.stem in ("002", "004"):
            path.unlink()
    truth = load_truth(tmp_path)
    assert truth.names == ["001", "003"]
    assert "without images (002)" in truth.warnings[0]


def test_an_empty_folder_is_no_release(tmp_path):
    with pytest.raises(InputError, match="OCELOT release"):
        load_truth(tmp_path)


def test_json_truth_keeps_pairs_without_cells(tmp_path):
    path = write_json(tmp_path / "cell_gt.json", document(PAIRS, num_images=5))
    truth = load_truth(path)
    assert truth.names == [f"image_{i}" for i in range(5)]
    assert [len(points) for points in truth.points] == [2, 0, 1, 0, 0]
    assert truth.organs == []


@pytest.mark.parametrize("extra", [{}, {"num_images": 0}, {"num_images": "3"}, {"num_images": True}])
def test_json_truth_must_say_how_many_pairs_there_are(tmp_path, extra):
    with pytest.raises(InputError, match="num_images"):
        load_truth(write_json(tmp_path / "cell_gt.json", document(PAIRS, **extra)))


def test_json_truth_is_checked_like_predictions(tmp_path):
    with pytest.raises(FormatError, match="there are 2 pairs"):
        load_truth(write_json(tmp_path / "cell_gt.json", document(PAIRS, num_images=2)))


@pytest.mark.parametrize(
    "choice", [{"subset": "train"}, {"ids": ["001"]}, {"patient_key": PatientKey("case")}]
)
def test_a_choice_among_a_json_truth_is_a_misunderstanding(tmp_path, choice):
    path = write_json(tmp_path / "cell_gt.json", document(PAIRS, num_images=3))
    with pytest.raises(UsageError, match="not a folder"):
        load_truth(path, **choice)


def test_the_real_release(shared):
    truth = load_truth(shared / "ocelot")
    assert len(truth) == 339
    assert len(truth.organs) == 6
    assert sum(not len(points) for points in truth.points) == 5
