"""Scores of nuclei: against the CellViT authors' numbers, mask by mask, and by hand."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nuclei_cases import WRITERS, drawn
from PIL import Image

from softctm.cli import main
from softctm.datasets.nuclei import NucleiLabels, open_nuclei
from softctm.errors import InputError, UsageError
from softctm.evaluation.nuclei.detection import (
    RADIUS_PX,
    detection_counts,
    detection_scores,
    pair_centers,
)
from softctm.evaluation.nuclei.panoptic import panoptic_quality, shape_counts
from softctm.evaluation.nuclei.scores import evaluate_nuclei
from softctm.nuclei_table import tabulate
from softctm.postprocessing.hover import classify_nuclei


def labels(instances, types=None):
    instances = np.asarray(instances, np.int32)
    return NucleiLabels(instances, tabulate(instances, np.zeros_like(instances) if types is None else types))


@pytest.mark.parametrize("number", range(3))
def test_numbers_of_reference(shared, number):
    post = np.load(shared / f"reference/cellvit/post_{number}.npz")
    expected = json.loads((shared / f"reference/cellvit/post_{number}_scores.json").read_text())
    true = labels(post["true_instances"], post["true_types"])
    predicted = NucleiLabels(
        post["instances"].astype(np.int32), classify_nuclei(post["instances"], post["types"])
    )
    pq, dq, sq = panoptic_quality(shape_counts(true, predicted, 6).panoptic)
    assert (pq[0], dq[0], sq[0]) == pytest.approx([expected[name] for name in ("bPQ", "DQ", "SQ")], abs=1e-6)
    radius = RADIUS_PX[int(post["magnification"])]
    precision, recall, f1 = detection_scores(
        detection_counts(true.table, predicted.table, radius=radius, types=6)
    )
    for row, scores in [(0, expected["detection"]), *((int(k), v) for k, v in expected["types"].items())]:
        assert f1[row] == pytest.approx(scores["f1"], abs=1e-6)
        assert precision[row] == pytest.approx(scores["precision"], abs=1e-6)
        assert recall[row] == pytest.approx(scores["recall"], abs=1e-6)
    for kind, value in expected["PQ_by_type"].items():
        assert pq[int(kind)] == pytest.approx(value, abs=1e-6)


MAPS = arrays(np.int32, (6, 7), elements=st.integers(0, 4))


@settings(max_examples=150, deadline=None)
@given(
    MAPS,
    MAPS,
    arrays(np.int64, 5, elements=st.integers(1, 2)),
    arrays(np.int64, 5, elements=st.integers(1, 2)),
)
def test_shapes_mask_by_mask(true, predicted, kinds, claims):
    kinds[0] = claims[0] = 0
    counts = shape_counts(labels(true, kinds[true]), labels(predicted, claims[predicted]), 3)
    ids, found = (sorted(set(a.ravel().tolist()) - {0}) for a in (true, predicted))

    def iou(i, j):
        return ((true == i) & (predicted == j)).sum() / ((true == i) | (predicted == j)).sum()

    for kind in range(3):
        mine = [i for i in ids if kind in (0, kinds[i])]
        theirs = [j for j in found if kind in (0, claims[j])]
        pairs = [value for i, j in itertools.product(mine, theirs) if (value := iou(i, j)) > 0.5]
        tp = len(pairs)
        expected = [tp, len(theirs) - tp, len(mine) - tp, sum(pairs)]
        assert counts.panoptic[kind].tolist() == pytest.approx(expected)
    used, intersection, union = set(), 0, 0
    for i in ids:
        best = max(found, key=lambda j: iou(i, j), default=None)
        if best is None or iou(i, best) == 0:
            union += (true == i).sum()
        else:
            used.add(best)
            intersection += ((true == i) & (predicted == best)).sum()
            union += ((true == i) | (predicted == best)).sum()
    union += sum((predicted == j).sum() for j in found if j not in used)
    # Where several overlap a nucleus equally well, another of them may be the best.
    if len({(i, round(iou(i, j), 9)) for i in ids for j in found if iou(i, j)}) == sum(
        iou(i, j) > 0 for i in ids for j in found
    ):
        assert counts.jaccard.tolist() == [intersection, union]
    both = ((true > 0) & (predicted > 0)).sum()
    assert counts.dice.tolist() == [2 * both, (true > 0).sum() + (predicted > 0).sum()]


def test_aji_of_two_halves_by_hand():
    """One nucleus of 8 px, seen as two: the larger half counts, the other is a false positive's area."""
    true, predicted = np.zeros((2, 6), int), np.zeros((2, 6), int)
    true[:, :4] = 1
    predicted[:, :3], predicted[:, 3] = 1, 2
    counts = shape_counts(labels(true), labels(predicted), 1)
    assert counts.jaccard.tolist() == [6, 8 + 2]
    assert counts.panoptic[0].tolist() == [1, 1, 0, 6 / 8]
    assert counts.matches.tolist() == [[1, 1]]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 4), st.integers(0, 4))
def test_assignment_is_the_best_of_all(seed, count, other):
    """Of all assignments of as many as possible, the sum of distances is least."""
    random = np.random.default_rng(seed)

    def points(number):
        squares = np.zeros((60, 60), np.int32)
        for i, place in enumerate(random.choice(36, number, replace=False)):
            row, column = divmod(int(place), 6)
            squares[row * 10 : row * 10 + 3, column * 10 : column * 10 + 4] = i + 1
        return tabulate(squares, squares > 0)

    true, predicted = points(count), points(other)
    first, second = pair_centers(true, predicted, np.inf)
    distance = np.hypot(true.x[:, None] - predicted.x, true.y[:, None] - predicted.y)
    small, large = sorted((count, other))
    table = distance if count <= other else distance.T
    least = min(
        (
            sum(table[i, j] for i, j in enumerate(choice))
            for choice in itertools.permutations(range(large), small)
        ),
        default=0,
    )
    assert len(first) == small
    assert distance[first, second].sum() == pytest.approx(least)


def test_weights_of_types_by_hand():
    """Three nuclei found, one of them misclassified; one invented, one overlooked."""
    true, predicted = np.zeros((4, 60), int), np.zeros((4, 60), int)
    for number, column in enumerate((0, 15, 30, 45), 1):
        true[:, column : column + 4] = number
    predicted[:, 0:4], predicted[:, 15:19], predicted[:, 30:34], predicted[:, 54:58] = 1, 2, 3, 4
    kinds, claims = np.array([0, 1, 1, 2, 2]), np.array([0, 1, 2, 2, 1])
    counts = detection_counts(
        labels(true, kinds[true]).table, labels(predicted, claims[predicted]).table, radius=6, types=3
    )
    assert counts.tolist() == [[3, 0, 0, 1, 1], [1, 0, 1, 1, 0], [1, 1, 0, 0, 1]]
    precision, recall, f1 = detection_scores(counts)
    assert precision.tolist() == [3 / 4, 1 / (1 + 1), 1 / (1 + 2)]
    assert recall.tolist() == [3 / 4, 1 / (1 + 2), 1 / (1 + 1)]
    assert f1.tolist() == [6 / 8, 2 / (2 + 2 + 1), 2 / (2 + 2 + 1)]


def test_the_radius_is_included():
    true, predicted = np.zeros((1, 40), int), np.zeros((1, 40), int)
    true[0, 3], predicted[0, 15] = 1, 1
    tables = labels(true).table, labels(predicted).table
    assert len(pair_centers(*tables, 12)[0]) == 1
    assert len(pair_centers(*tables, 11.9)[0]) == 0


def test_scores_of_nothing():
    nothing, something = labels(np.zeros((4, 4))), labels(np.eye(4))
    assert np.isnan(panoptic_quality(shape_counts(nothing, nothing, 1).panoptic)).all()
    assert panoptic_quality(shape_counts(nothing, something, 1).panoptic)[0].tolist() == [0]
    assert np.isnan(detection_scores(detection_counts(nothing.table, nothing.table, radius=6, types=1))[2][0])


def write_shifted(folder, shift):
    """The label images of `nuclei_cases`, moved right."""
    WRITERS["labels"](folder)
    for path in (folder / "instances").iterdir():
        with Image.open(path) as image:
            moved = np.roll(np.asarray(image), shift, axis=1)
        Image.fromarray(moved).save(path)


@pytest.fixture
def folders(tmp_path):
    WRITERS["labels"](tmp_path / "truth")
    write_shifted(tmp_path / "shifted", 2)
    return tmp_path


def test_perfect_predictions(folders):
    truth = open_nuclei(folders / "truth")
    found = evaluate_nuclei(truth, truth, name="itself", resamples=50)
    assert all(figure.value == figure.low == 1 for figure in found.overall.figures.values())
    assert [group.name for group in found.organs] == ["colon", "liver"]
    assert [group.true for group in found.by_type] == [2, 4, 2]
    assert all(group.figures["f1"].value == 1 for group in found.by_type)


def test_means_over_images_and_organs(folders):
    truth, shifted = open_nuclei(folders / "truth"), open_nuclei(folders / "shifted")
    found = evaluate_nuclei(truth, shifted, name="shifted", resamples=200)
    by_image = []
    for _, instances, _ in drawn():
        counts = shape_counts(labels(instances), labels(np.roll(instances, 2, axis=1)), 1)
        by_image.append(panoptic_quality(counts.panoptic)[0][0])
    figure = found.overall.figures["bpq"]
    assert figure.value == pytest.approx(np.mean(by_image))
    assert figure.low == pytest.approx(min(by_image))
    assert figure.high == pytest.approx(max(by_image))
    assert found.over_organs["bpq"].value == pytest.approx(np.mean(by_image))
    assert [group.figures["bpq"].value for group in found.organs] == pytest.approx(by_image[::-1])
    assert [image.figures["bpq"] for image in found.images] == pytest.approx(by_image)


def test_types_are_those_of_the_same_name(folders, tmp_path):
    """Predictions that number their types otherwise and hold fewer are still right."""
    for path in (folders / "shifted/types").iterdir():
        path.write_text(path.read_text().replace("a_inflammatory", "z").replace("c_dead", "b_connective"))
    truth, shifted = open_nuclei(folders / "truth"), open_nuclei(folders / "shifted")
    found = {group.name: group for group in evaluate_nuclei(truth, shifted, name="s", resamples=0).by_type}
    assert set(found) == {"a_inflammatory", "b_connective", "c_dead", "z"}
    assert found["a_inflammatory"].figures["recall"].value == 0
    assert found["b_connective"].figures["recall"].value == 1
    assert found["b_connective"].figures["precision"].value == 4 / (4 + 2 * 2)
    merged = {"z": "a", "a_inflammatory": "a", "b_connective": "bc", "c_dead": "bc"}
    found = evaluate_nuclei(truth, shifted, name="s", merged=merged, resamples=0)
    assert [(group.name, group.figures["f1"].value) for group in found.by_type] == [("a", 1), ("bc", 1)]
    with pytest.raises(UsageError, match="no type is called"):
        evaluate_nuclei(truth, shifted, name="s", merged={"absent": "a"})


def test_without_types_on_one_side(tmp_path):
    WRITERS["monuseg"](tmp_path / "truth")
    WRITERS["results"](tmp_path / "found")
    both = open_nuclei(tmp_path / "truth"), open_nuclei(tmp_path / "found")
    found = evaluate_nuclei(*both, name="s", resamples=0)
    assert found.by_type == ()
    assert np.isnan(found.overall.figures["mpq"].value)
    assert found.overall.figures["bpq"].value == 1
    with pytest.raises(UsageError, match="--merge: truth or predictions have no types"):
        evaluate_nuclei(*both, name="s", merged={"a": "b"})


def test_faults_are_named(folders):
    truth, shifted = open_nuclei(folders / "truth"), open_nuclei(folders / "shifted")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(folders / "shifted/instances/first.png")
    with pytest.raises(InputError, match=r"image first: the predicted map has the size \(4, 4\)"):
        evaluate_nuclei(truth, shifted, name="s")
    (folders / "shifted/instances/second.png").unlink()
    with pytest.raises(InputError, match="image second of the truth has no prediction"):
        evaluate_nuclei(truth, open_nuclei(folders / "shifted"), name="s")


class TestCommand:
    def run(self, folders, *options):
        truth, shifted = str(folders / "truth"), str(folders / "shifted")
        return main(["evaluate", "nuclei", "--predictions", shifted, "--truth", truth, *options])

    def test_prints_and_writes(self, folders, capsys):
        assert self.run(folders, "--output", str(folders / "out"), "--resamples", "100") == 0
        printed = capsys.readouterr().out
        assert "shifted: 2 images, 8 true nuclei, 8 predicted" in printed
        document = json.loads((folders / "out/evaluation.json").read_text())
        assert f"bPQ       {document['overall']['figures']['bpq']['value']:.4f}" in printed
        assert document["types"] == ["a_inflammatory", "b_connective", "c_dead"]
        rows = (folders / "out/images.csv").read_text().splitlines()
        assert rows[0].startswith("name,organ,true,predicted,bpq,dq,sq,mpq,aji,dice,")
        assert rows[1].startswith("first,liver,4,4,")
        assert (folders / "out/figures.csv").read_text().splitlines()[1].startswith("all,all,bpq,0.")

    def test_does_not_replace_what_it_did_not_make(self, folders, capsys):
        page = folders / "page.html"
        page.write_text("mine")
        assert self.run(folders, "--report", str(page), "--resamples", "0") == 6
        assert page.read_text() == "mine"
        assert self.run(folders, "--report", str(page), "--resamples", "0", "--overwrite") == 0
        assert self.run(folders, "--report", str(page), "--resamples", "0") == 0
        tables = folders / "tables"
        tables.mkdir()
        (tables / "images.csv").write_text("mine")
        assert self.run(folders, "--output", str(tables), "--resamples", "0") == 6
        assert (tables / "images.csv").read_text() == "mine"
        (tables / "images.csv").unlink()
        for _ in range(2):
            assert self.run(folders, "--output", str(tables), "--resamples", "0") == 0

    def test_types_without_a_common_name_are_warned_of(self, folders, capsys):
        assert self.run(folders, "--resamples", "0") == 0
        assert capsys.readouterr().err == ""
        for path in (folders / "shifted/types").iterdir():
            path.write_text(path.read_text().replace("a_inflammatory", "Inflammatory"))
        assert self.run(folders, "--resamples", "0") == 0
        assert capsys.readouterr().err == ""
        for path in (folders / "shifted/types").iterdir():
            path.write_text(path.read_text().replace("b_connective", "tumor").replace("c_dead", "tumor"))
        assert self.run(folders, "--resamples", "0") == 0
        both = "truth (a_inflammatory, b_connective, c_dead) and predictions (Inflammatory, tumor)"
        assert f"{both} have no type in common" in capsys.readouterr().err
        merged = ["--merge", "tumor=b_connective,c_dead"]
        assert self.run(folders, "--resamples", "0", *merged) == 0
        assert capsys.readouterr().err == ""

    def test_cells_is_the_command_alone(self, capsys):
        for words in (["evaluate", "cells"], ["evaluate"]):
            with pytest.raises(SystemExit):
                main([*words, "--help"])
            assert "cell_classification.json" in capsys.readouterr().out

    def test_options(self, folders, capsys):
        assert self.run(folders, "--fail-under", "0.99") == 8
        assert "bPQ is below the demanded 0.99" in capsys.readouterr().err
        assert self.run(folders, "--fail-under", "0.1", "--resamples", "0") == 0
        assert "95 %" not in capsys.readouterr().out
        for fault in (["--merge", "a"], ["--merge", "a=b,"], ["--merge", "a=b", "--merge", "c=b"]):
            assert self.run(folders, *fault) == 2
        assert self.run(folders, "--merge", "all=a_inflammatory,b_connective,c_dead", "--resamples", "0") == 0
        assert "all" in capsys.readouterr().out
