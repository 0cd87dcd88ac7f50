from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

pytest.importorskip("jinja2", reason="the report needs the extra 'report'")
pytest.importorskip("matplotlib", reason="the report needs the extra 'report'")

from evaluation_cases import (
    BC,
    TC,
    cells,
    crowded_cells,
    document,
    imperfect,
    join,
    literal_match,
    random_cells,
    take,
    write_json,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from report_cases import PageParts, visible_counts, write_release_with_images

from softctm.cli import main
from softctm.errors import UsageError
from softctm.evaluation.analysis import evaluate
from softctm.evaluation.bootstrap import Estimate
from softctm.evaluation.matching import match
from softctm.evaluation.predictions import load_predictions
from softctm.evaluation.truth import GroundTruth, GroundTruthPair, load_truth
from softctm.readers import open_pairs
from softctm.report import plots
from softctm.report.analyses import with_interval
from softctm.report.build import by_f1, pair_f1, spread
from softctm.report.collect import place_in_source
from softctm.report.embedded_images import jpeg_uri, outline
from softctm.report.viewer import STOPS, counts_by_stop, last_stop, marks, number, stops_with_truth


@settings(max_examples=40, deadline=None)
@given(crowded_cells(), crowded_cells(), st.sampled_from([0, 1, 20, 21, 50, 51, 69, 70, 71, 99, 100]))
def test_a_cut_equals_matching_only_what_is_left(predicted, true, stop):
    # The rule word by word, on nothing but the predictions that reach the threshold.
    left = take(predicted, predicted.score >= np.float32(stop / 100))
    partner = np.array(literal_match(left, true), int)
    expected = {}
    for label in (BC, TC):
        tp = int(np.count_nonzero(partner[left.label == label] >= 0))
        fp = int(np.count_nonzero(left.label == label)) - tp
        fn = int(np.count_nonzero(true.label == label)) - tp
        expected |= {("tp", label): tp, ("fp", label): fp, ("fn", label): fn}
    counts = counts_by_stop([predicted], [true])[0, stop]
    assert counts.tolist() == [[expected[kind, c] for kind in ("tp", "fp", "fn")] for c in (BC, TC)]
    shown = visible_counts(marks(predicted, true, match(predicted, true)), stop)
    assert shown == {key: value for key, value in expected.items() if value}


def test_a_score_is_kept_at_its_own_threshold():
    # 0.7 as float32 is below 0.7: compared as doubles, the prediction would vanish at 0.70.
    scores = np.array([k / 100 for k in range(101)], np.float32)
    assert last_stop(scores).tolist() == list(range(101))
    assert last_stop(np.nextafter(scores[1:], np.float32(0))).tolist() == list(range(100))
    assert len(STOPS) == 101


def test_tables_of_all_pairs_have_the_challenges_numbers(shared):
    folder = shared / "reference/evaluation"
    truth = load_truth(folder / "cell_gt.json")
    predicted = load_predictions(folder / "cell_classification.json", len(truth))
    first = stops_with_truth(counts_by_stop(predicted, truth.points).sum(axis=0), pooled=True)[0]
    expected = json.loads((folder / "scores.json").read_text())
    for name in ("BC", "TC"):
        found = [first[name][key] for key in ("precision", "recall", "f1")]
        assert found == [f"{expected[f'{kind}/{name}']:.4f}" for kind in ("Pre", "Rec", "F1")]
    assert first["mean_f1"] == f"{expected['mF1']:.4f}"


def test_a_pairs_table_leaves_out_what_is_not_defined():
    counts = counts_by_stop([cells((10, 10, TC, 0.5))], [cells((12, 10, TC), (500, 500, TC))])[0]
    rows = stops_with_truth(counts, pooled=False)
    first, last = rows[0], rows[100]
    assert first["BC"] == {"tp": 0, "fp": 0, "fn": 0, "precision": "–", "recall": "–", "f1": "–"}
    assert (first["TC"]["precision"], first["TC"]["recall"], first["TC"]["f1"]) == (
        "1.0000",
        "0.5000",
        "0.6667",
    )
    assert (last["TC"]["precision"], last["TC"]["recall"]) == ("–", "0.0000")
    assert (first["purity"], first["true_purity"], last["purity"]) == ("1.000", "1.000", "–")


def test_numbers_have_a_minus_sign_and_no_negative_zero():
    assert [number(value, 2) for value in (-0.5, -0.001, float("nan"))] == ["−0.50", "0.00", "–"]


def test_images_keep_below_their_limit_and_stay_recognizable():
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    limit = 200_000
    uri = jpeg_uri(noise, limit)
    assert len(base64.b64decode(uri.split(",")[1])) <= limit
    ramp = np.linspace(0, 255, 1024).astype(np.uint8)
    smooth = np.stack(
        [np.tile(ramp, (1024, 1)), np.tile(ramp[:, None], (1, 1024)), np.full((1024, 1024), 90)], 2
    )
    data = base64.b64decode(jpeg_uri(smooth.astype(np.uint8), limit).split(",")[1])
    decoded = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    assert np.abs(decoded - smooth).mean() < 2
    assert Image.open(io.BytesIO(base64.b64decode(jpeg_uri(noise, limit, 64).split(",")[1]))).size == (64, 64)


def area(path):
    """Area within an SVG path of closed loops by the even-odd rule, for loops that do not cross."""
    total = 0.0
    for loop in path.split("Z")[:-1]:
        x, y = np.array([point.split(",") for point in loop[1:].split("L")], float).T
        total += 0.5 * (x @ np.roll(y, -1) - y @ np.roll(x, -1))
    return abs(total)


def test_outlines_enclose_the_area_they_stand_for():
    row, column = np.mgrid[:1024, :1024]
    disc = (row - 400) ** 2 + (column - 600) ** 2 < 200**2
    ring = disc & ((row - 400) ** 2 + (column - 600) ** 2 >= 90**2)
    assert area(outline(disc)) == pytest.approx(disc.sum(), rel=0.02)
    assert area(outline(ring)) == pytest.approx(ring.sum(), rel=0.02)
    assert area(outline(np.ones((1024, 1024), bool))) == pytest.approx(1024**2, rel=0.01)
    assert outline(np.zeros((1024, 1024), bool)) == ""
    numbers = np.array(re.findall(r"-?\d+", outline(disc)), int).reshape(-1, 2)
    assert numbers[:, 0].min() == pytest.approx(400, abs=3)
    assert numbers[:, 1].max() == pytest.approx(600, abs=3)


@pytest.mark.parametrize(
    ("pairs", "each", "expected"),
    [
        (0, 3, {}),
        (1, 3, {0: "b"}),
        (2, 3, {0: "a", 1: "c"}),
        (4, 3, {0: "a", 1: "b", 2: "b", 3: "c"}),
        (11, 1, {0: "a", 5: "b", 10: "c"}),
        (12, 2, {0: "a", 1: "a", 5: "b", 6: "b", 10: "c", 11: "c"}),
    ],
)
def test_pairs_are_chosen_from_both_ends_and_the_middle(pairs, each, expected):
    assert spread(range(pairs), each, ("a", "b", "c")) == expected


def test_pairs_are_ranked_by_the_f1_of_all_their_cells():
    random = np.random.default_rng(1)
    true = [random_cells(random, n) for n in (40, 40, 40, 3, 0)]
    half = take(true[1], slice(0, 20))
    predicted = [true[0], half, cells(), cells(), cells((1, 1, TC, 0.5))]
    truth = GroundTruth(tuple(GroundTruthPair(str(i), points) for i, points in enumerate(true)), "synthetic")
    result = evaluate(predicted, truth, resamples=0)
    # 20 tp, 20 fn: 2 · 20 / (2 · 20 + 20). Pairs 3 and 4 have too few annotated cells to compete.
    assert pair_f1(result.pairs[1]) == pytest.approx(40 / 60)
    assert by_f1(result.pairs) == [2, 1, 0]
    few = evaluate(predicted[3:], GroundTruth(truth.pairs[3:], "synthetic"), resamples=0)
    assert by_f1(few.pairs) == [0, 1]


def test_plots_are_wellformed_share_no_names_and_leave_the_page_alone():
    random = np.random.default_rng(2)
    true = [random_cells(random, 60) for _ in range(4)]
    predicted = [imperfect(random, points) for points in true]
    truth = GroundTruth(
        tuple(GroundTruthPair(f"$a_{i}<b>", points) for i, points in enumerate(true)), "synthetic"
    )
    result = evaluate(predicted, truth, resamples=50)
    drawn = [
        plots.subgroup_plot(dict.fromkeys(("kid$ney", "<lung> & $x$"), result.figures)),
        plots.confidence_plot(result.confidence),
        plots.calibration_plot(result.calibration),
        plots.purity_plot(result.purity.predicted, result.purity.true),
        plots.distance_plot(result.distances),
        plots.score_plot(np.array([1, 2]), np.array([0.2, 0.9], np.float32)),
        plots.purity_histogram(np.array([0.5, np.nan])),
    ]
    names = []
    for text in drawn:
        tree = ElementTree.fromstring(str(text))
        assert tree.tag.endswith("svg")
        names += re.findall(r'\bid="([^"]+)"', text)
        assert set(re.findall(r"(?:url\(|href=\")#([\w.-]+)", text)) <= set(names)
        assert "<style" not in text
        assert "#1d1b26" not in text
    assert len(set(names)) == len(names)
    words = "".join(ElementTree.fromstring(str(drawn[0])).itertext())
    assert "kid$ney" in words
    assert "<lung> & $x$" in words


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A release of six pairs with images, the last without cells, and a middling detector's predictions."""
    folder = tmp_path_factory.mktemp("case")
    random = np.random.default_rng(3)
    true = [*(random_cells(random, 60) for _ in range(5)), cells()]
    predicted = [imperfect(random, points) for points in true]
    organs = ["kidney", "liver", "kidney", "liver", "liver", "kidney"]
    release = write_release_with_images(folder / "release", true, organs)
    return release, write_json(folder / "cell_classification.json", document(predicted)), true, predicted


def report(folder, *words):
    out = folder / "page" / "report.html"
    assert main(["report", str(out), *map(str, words)]) == 0
    page = out.read_text(encoding="utf-8")
    return page, PageParts(page)


@pytest.fixture(scope="module")
def page_with_truth(case, tmp_path_factory):
    release, predictions, _, _ = case
    arguments = ("--predictions", predictions, "--truth", release, "--resamples", 50)
    return report(tmp_path_factory.mktemp("with-truth"), *arguments)


def test_the_page_needs_no_network_and_no_neighbors(page_with_truth):
    page, parts = page_with_truth
    for tag, attributes in parts.elements:
        for name in ("src", "href", "xlink:href", "srcset", "poster", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, value)
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page
    policy = next(a["content"] for _, a in parts.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    names = [attributes["id"] for _, attributes in parts.elements if "id" in attributes]
    assert len(names) == len(set(names))
    anchors = {a["href"][1:] for t, a in parts.elements if t == "a" and (a.get("href") or "").startswith("#")}
    assert anchors <= set(names)
    assert len(page) < 0.75e6 * 5 + 1e6


def test_the_page_says_what_the_evaluation_says(case, page_with_truth):
    _, _, true, predicted = case
    _, parts = page_with_truth
    truth = GroundTruth(
        tuple(GroundTruthPair(f"{i + 1:03d}", points) for i, points in enumerate(true)), "synthetic"
    )
    result = evaluate(predicted, truth, resamples=0)
    assert f"Mean F1 {result.challenge['mF1']:.4f}" in parts.text
    assert f"F1 of tumor cells {result.challenge['F1/TC']:.4f}" in parts.text
    for words in ("By organ", "kidney", "liver", "By annotated tissue", "cancer area", "Tumor purity"):
        assert words in parts.text
    shown = [entry["title"].split(" ")[0] for entry in parts.data["pairs"]]
    assert shown == [f"{i + 1:03d}" for i in by_f1(result.pairs)]
    assert sorted(shown) == ["001", "002", "003", "004", "005"]
    sources = {(region["source"], region["kind"]) for region in parts.data["pairs"][0]["regions"]}
    assert sources == {("annotated", "cancer"), ("annotated", "unknown")}
    assert all(entry["window"] == [100, 300] for entry in parts.data["pairs"])


def test_without_truth_there_are_just_the_cells_and_the_purity(case, tmp_path):
    release, predictions, _, predicted = case
    _, parts = report(tmp_path, "--predictions", predictions, "--input", release)
    everything = join(*predicted)
    purity = np.mean(everything.label == TC)
    assert f"Tumor purity {purity:.3f}" in parts.text
    assert "F1" not in parts.text.replace("F1 of", "")
    assert all("truth" not in entry for entry in parts.data["pairs"])
    stop = parts.data["stops"][50]
    left = everything.score >= np.float32(0.5)
    assert stop["BC"]["cells"] == np.count_nonzero(left & (everything.label == BC))
    assert stop["TC"]["cells"] == np.count_nonzero(left & (everything.label == TC))


def test_truth_without_images_makes_a_page_without_viewer(case, tmp_path):
    _, predictions, true, _ = case
    truth = write_json(tmp_path / "cell_gt.json", document(true, num_images=len(true)))
    _, parts = report(tmp_path, "--predictions", predictions, "--truth", truth, "--resamples", 0)
    assert parts.data is None
    assert "image_5" in parts.text
    assert "95 %" not in parts.text.split("Scores", 2)[0]


def test_a_points_file_takes_its_pairs_names_from_the_images(case, tmp_path):
    release, predictions, true, _ = case
    truth = write_json(tmp_path / "cell_gt.json", document(true, num_images=len(true)))
    arguments = ("--truth", truth, "--input", release, "--subset", "train", "--resamples", 0)
    _, parts = report(tmp_path, "--predictions", predictions, *arguments)
    assert {entry["title"].split(" ")[0] for entry in parts.data["pairs"]} == {f"00{i}" for i in range(1, 6)}


def test_predictions_of_some_pairs_are_shown_on_their_own_images(case, tmp_path):
    release, _, true, predicted = case
    chosen = [4, 1]
    (tmp_path / "ids.txt").write_text("".join(f"{i + 1:03d}\n" for i in chosen))
    predictions = write_json(tmp_path / "some.json", document([predicted[i] for i in chosen]))
    arguments = ("--truth", release, "--ids", tmp_path / "ids.txt", "--resamples", 0)
    _, parts = report(tmp_path, "--predictions", predictions, *arguments)
    cells_of = {entry["title"].split(" ")[0]: len(entry["truth"]) for entry in parts.data["pairs"]}
    assert cells_of == {f"{i + 1:03d}": len(true[i]) for i in chosen}
    source = open_pairs(release)
    assert place_in_source(["005", "002"], source) == chosen
    assert place_in_source([f"image_{i}" for i in range(6)], source) == list(range(6))
    for names in (["image_0"], [f"{i + 2:03d}" for i in range(6)]):  # of the latter, five agree
        with pytest.raises(UsageError, match="other names"):
            place_in_source(names, source)


def test_several_predictions_are_ranked(case, tmp_path):
    release, predictions, true, _ = case
    perfect = write_json(tmp_path / "perfect.json", document(true))
    arguments = ("--truth", release, "--resamples", 50)
    _, parts = report(tmp_path, "--predictions", predictions, perfect, *arguments)
    assert "Ranking by mean F1" in parts.text
    assert re.search(r"perfect 1 1\.000", parts.text)


def test_tissue_maps_are_scored_and_drawn(case, tmp_path):
    release, predictions, _, _ = case
    maps = tmp_path / "maps"
    maps.mkdir()
    for i in range(6):
        Image.fromarray(np.full((1024, 1024), 2, np.uint8)).save(maps / f"image_{i}.png")
    arguments = ("--truth", release, "--tissue", maps, "--resamples", 0)
    _, parts = report(tmp_path, "--predictions", predictions, *arguments)
    assert "IoU cancer" in parts.text
    assert {"source", "kind", "path"} == set(parts.data["pairs"][0]["regions"][-1])
    assert parts.data["pairs"][0]["regions"][-1]["source"] == "predicted"
    _, parts = report(tmp_path, "--predictions", predictions, "--input", release, "--tissue", maps)
    assert [region["source"] for region in parts.data["pairs"][0]["regions"]] == ["predicted"]


def test_what_failed_is_named_and_the_others_are_shown(case, tmp_path):
    release = shutil.copytree(case[0], tmp_path / "release")
    (release / "images/train/cell/002.jpg").write_bytes(b"not an image")
    predictions = shutil.copy(case[1], tmp_path)
    record = {
        "model": {"name": "compact", "version": "1.2.0"},
        "failures": [{"index": 3, "name": "004", "error": "pair 004: the image is truncated"}],
    }
    write_json(tmp_path / "run.json", record)
    _, parts = report(tmp_path, "--predictions", predictions, "--truth", release, "--resamples", 0)
    assert len(parts.data["pairs"]) == 4
    assert "Not in the viewer: pair 002" in parts.text
    assert "model: compact 1.2.0" in parts.text
    assert "pair 004: the image is truncated" in parts.text


def test_nothing_in_the_input_becomes_markup(tmp_path):
    random = np.random.default_rng(4)
    true = [random_cells(random, 20)]
    release = write_release_with_images(tmp_path / "release", true, ["</script><img src=x onerror=alert(1)>"])
    predictions = write_json(tmp_path / "p.json", document(true))
    title = "<b>&amp;</b></title><script>alert(2)</script>"
    arguments = ("--truth", release, "--title", title, "--resamples", 0)
    _, parts = report(tmp_path, "--predictions", predictions, *arguments)
    assert title in "".join(parts.texts)
    assert sum(tag == "script" for tag, _ in parts.elements) == 2
    assert not any("onerror" in attributes for _, attributes in parts.elements)
    assert parts.data["pairs"][0]["title"].startswith("001 · </script>")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--predictions", "P"), "give --input"),
        (("--predictions", "P", "Q", "--input", "R"), "takes --truth"),
        (("--predictions", "P", "--truth", "R", "--each", "0"), "--each must be at least 1"),
        (("--predictions", "P", "--truth", "R", "--resamples", "-1"), "--resamples"),
        (("--predictions", "P", "Q", "--truth", "R", "--resamples", "0"), "--resamples 0: several"),
        (("--predictions", "P", "--input", "R", "--ids", "P"), "--ids"),
        (("--predictions", "P", "--input", "R", "--subset", "val"), "images/val"),
    ],
)
def test_contradictory_options_are_refused(case, tmp_path, capsys, words, message):
    release, predictions, _, _ = case
    named = {"P": str(predictions), "Q": str(predictions.with_name("q.json")), "R": str(release)}
    assert main(["report", str(tmp_path / "r.html"), *(named.get(word, word) for word in words)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "r.html").exists()


def test_no_interval_is_broken_and_one_that_is_undefined_is_left_out(case, page_with_truth):
    page, _ = page_with_truth
    assert re.search(r'<td>0\.\d+ <span class="interval">\(0\.\d+–0\.\d+\)</span></td>', page)
    assert re.search(r"<td>[^<]*\(", page) is None
    assert with_interval(Estimate(0.5, np.nan, np.nan)) == "0.500"
    assert with_interval(Estimate(0.5, 0.25, 0.75)) == "0.500 (0.250–0.750)"


def test_few_pairs_are_counted_in_whole_numbers():
    drawn = plots.purity_histogram(np.array([0.2, 0.5, 0.9]))
    ticks = set(re.findall(r">([\d.]+)</text>", drawn))
    assert {"0", "1"} <= ticks
    assert not {"0.25", "0.50", "0.75", "1.25"} & ticks


def test_matplotlib_says_nothing_of_its_cache(tmp_path):
    """Where it cannot write, and has no list of fonts yet, it has two things to say."""
    (tmp_path / "file").touch()
    environment = os.environ | {"MPLCONFIGDIR": str(tmp_path / "file"), "TMPDIR": str(tmp_path)}
    code = "from softctm.report import plots; import numpy as np; plots.purity_histogram(np.array([0.5]))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
