"""The job: what is written when all is well, when pairs fail, and when it is interrupted."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
from inputs import PEAK_MEMORY, entry, patch, stack_paths, write_metadata, write_pairs
from PIL import Image
from tiny_networks import write_folder

from softctm import __version__
from softctm.errors import (
    DeviceError,
    InputError,
    ModelError,
    OutputError,
    PairError,
    PartialResultError,
    SoftCTMError,
    UsageError,
)
from softctm.inference.detector import Prediction
from softctm.jobs import pairs as container
from softctm.jobs.job_options import JobOptions
from softctm.jobs.pair_result import JobResult
from softctm.jobs.pairs import load_detector, run_job
from softctm.pair import CellTissuePair
from softctm.points import CellPoints
from softctm.terminal.console import ConsoleProgress, log_shown


class FakeDetector:
    """One cell a pair, at a place and with a class that follow from the pair's pixels."""

    device = "cpu"
    notice: str | None = None
    model: Any = SimpleNamespace(
        name="fake",
        version="1",
        folder=Path("nowhere"),
        precision="float32",
        manifest=SimpleNamespace(task="cell-points", licenses=("MIT",)),
        hashes={"a.onnx": "0" * 64},
    )

    def __init__(self, before: Callable[[CellTissuePair], None] = lambda pair: None) -> None:
        self.seconds = {"tissue": 5.0}
        self._before = before

    def predict(self, pair: CellTissuePair, *, maps: bool = False) -> Prediction:
        self._before(pair)
        self.seconds["tissue"] += 1
        points = CellPoints(
            np.array([pair.window.x], np.int32),
            np.array([int(pair.cell[0, 0, 0])], np.int32),
            np.array([1 + pair.window.x % 2], np.uint8),
            np.array([0.75], np.float32),
        )
        return Prediction(points, *((np.zeros((2, 1024, 1024), np.float32),) * 2 if maps else ()))


def expected(*indices: int) -> list[dict[str, Any]]:
    """The points of `FakeDetector` for `write_pairs`' pairs."""
    return [
        {"name": f"image_{i}", "point": [i, int(patch(i)[0, 0, 0]), 1 + i % 2], "probability": 0.75}
        for i in indices
    ]


def written(output: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    points = json.loads((output / "cell_classification.json").read_text())["points"]
    return points, json.loads((output / "run.json").read_text())


def run(tmp_path: Path, detector: FakeDetector | None = None, **options: Any) -> JobResult:
    with log_shown():
        return run_job(
            tmp_path,
            tmp_path / "out",
            JobOptions(**options),
            detector or FakeDetector(),
            progress=ConsoleProgress(),
        )


def failing_for(name: str, error: BaseException) -> FakeDetector:
    def before(pair: CellTissuePair) -> None:
        if pair.name == name:
            raise error

    return FakeDetector(before)


def test_all_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(write_pairs(tmp_path, 3))
    points, record = written(tmp_path / "out")
    assert points == expected(0, 1, 2)
    assert record["softctm"] == __version__
    assert record["status"] == "complete"
    assert record["error"] is None
    assert record["failures"] == record["warnings"] == []
    assert record["device"] == {"asked": "auto", "used": "cpu", "notice": None}
    assert record["model"]["name"] == "fake"
    assert record["model"]["sha256"] == {"a.onnx": "0" * 64}
    assert record["options"]["views"] == 8
    assert record["detect_seconds"] == {"tissue": 3.0}
    assert set(record["seconds"]) == {
        "open_input", "load_model", "read", "wait_for_input", "detect", "write", "total"
    }  # fmt: skip
    assert [(p["index"], p["name"], p["background_cells"], p["tumor_cells"]) for p in record["pairs"]] == [
        (0, "000", 1, 0), (1, "001", 0, 1), (2, "002", 1, 0)
    ]  # fmt: skip
    assert {"python", "numpy"} <= set(record["versions"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "cell_classification.json",
        "run.json",
    ]
    assert "3 of 3 pairs, 2 background cells, 1 tumor cell," in result.summary
    out, err = capsys.readouterr()
    assert err == ""
    assert "pair 2/3 001: 0 BC, 1 TC, about" in out


def test_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    contents = []
    for _ in range(2):
        run(tmp_path)
        contents.append((tmp_path / "out" / "cell_classification.json").read_bytes())
    assert contents[0] == contents[1]


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def test_a_bad_pair_does_not_lose_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(write_pairs(tmp_path, 3) / "images/cell_patches/001.png")
    with pytest.raises(
        PartialResultError, match=r"1 of 3 pairs failed and are missing from .*: 001; run.json"
    ):
        run(tmp_path)
    points, record = written(tmp_path / "out")
    assert points == expected(0, 2)
    assert record["status"] == "partial"
    assert [(f["index"], f["name"]) for f in record["failures"]] == [(1, "001")]
    assert "images/cell_patches/001.png" in record["failures"][0]["error"]
    assert [p["index"] for p in record["pairs"]] == [0, 1, 2]
    assert "warning: pair 001: images/cell_patches/001.png: cannot be decoded" in capsys.readouterr().err


def test_partial_may_be_allowed(tmp_path: Path) -> None:
    spoil(write_pairs(tmp_path, 3) / "images/tissue_patches/000.png")
    result = run(tmp_path, allow_partial=True)
    assert written(tmp_path / "out")[0] == expected(1, 2)
    assert result.points[0] is None
    assert "2 of 3 pairs" in result.summary


@pytest.mark.parametrize(
    "error",
    [
        PairError("pair 001: not finite"),
        DeviceError("out of memory"),
        RuntimeError("a bug\nin two lines"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failure_in_the_detector_does_not_lose_the_others(tmp_path: Path, error: Exception) -> None:
    write_pairs(tmp_path, 3)
    with pytest.raises(PartialResultError):
        run(tmp_path, failing_for("001", error))
    points, record = written(tmp_path / "out")
    assert points == expected(0, 2)
    message = record["failures"][0]["error"]
    assert message.startswith("pair 001: ")
    assert "\n" not in message


@pytest.mark.parametrize("allow_partial", [False, True])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PairError("pair x: NaN"), PairError),
        (ValueError("bug"), SoftCTMError),
    ],
    ids=["pair", "bug"],
)
def test_no_pair_at_all_is_never_a_success(
    tmp_path: Path, error: Exception, kind: type[SoftCTMError], allow_partial: bool
) -> None:
    write_pairs(tmp_path, 2)

    def before(pair: CellTissuePair) -> None:
        raise error

    with pytest.raises(kind, match=r"no pair could be processed: pair .* \(and 1 more, see run\.json\)"):
        run(tmp_path, FakeDetector(before), allow_partial=allow_partial)
    assert not (tmp_path / "out" / "cell_classification.json").exists()
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["status"] == "failed"
    assert len(record["failures"]) == 2


@pytest.mark.parametrize("bad", ["000", "001"])
def test_a_fault_of_the_model_ends_the_job_at_once_and_keeps_what_is_done(tmp_path: Path, bad: str) -> None:
    write_pairs(tmp_path, 3)
    with pytest.raises(ModelError, match=r"^write logits$"):
        run(tmp_path, failing_for(bad, ModelError("write logits")), allow_partial=True)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["status"], record["error"]) == ("failed", "write logits")
    assert (tmp_path / "out" / "cell_classification.json").exists() == (bad == "001")


def test_an_old_result_survives_a_failed_run(tmp_path: Path) -> None:
    run(write_pairs(tmp_path, 1))
    spoil(tmp_path / "images/cell_patches/000.png")
    with pytest.raises(InputError):
        run(tmp_path)
    assert written(tmp_path / "out")[0] == expected(0)


def test_failed_pairs_do_not_stay_in_memory(tmp_path: Path) -> None:
    write_pairs(tmp_path, 4)
    seen: weakref.WeakSet[CellTissuePair] = weakref.WeakSet()

    def before(pair: CellTissuePair) -> None:
        assert len(seen) <= 1, "more than the pair before is still in memory"
        seen.add(pair)
        if pair.name != "003":
            raise RuntimeError("no")

    assert run(tmp_path, FakeDetector(before), allow_partial=True).points[3] is not None


def test_interruption_keeps_what_is_done(tmp_path: Path) -> None:
    write_pairs(tmp_path, 3)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, failing_for("002", KeyboardInterrupt()))
    points, record = written(tmp_path / "out")
    assert points == expected(0, 1)
    assert record["status"] == "interrupted"


def test_what_is_done_is_written_while_the_job_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs(tmp_path, 3)
    output, seen = tmp_path / "out", []

    def before(pair: CellTissuePair) -> None:
        seen.append(written(output) if (output / "run.json").exists() else None)

    monkeypatch.setattr("softctm.jobs.pairs._WRITE_EVERY_S", 0.0)
    run(tmp_path, FakeDetector(before))
    assert seen[0] is None
    for done, (points, record) in enumerate(seen[1:], start=1):
        assert points == expected(*range(done))
        assert record["status"] == "unfinished"
        assert len(record["pairs"]) == done
    assert written(output)[1]["status"] == "complete"


def test_a_short_job_writes_at_its_end_only(tmp_path: Path) -> None:
    write_pairs(tmp_path, 3)
    seen = []
    run(tmp_path, FakeDetector(lambda pair: seen.append((tmp_path / "out" / "run.json").exists())))
    assert len(seen) == 3
    assert not any(seen)


def test_bad_input_is_told_before_the_networks_are_loaded(tmp_path: Path) -> None:
    def load(options: JobOptions) -> Any:
        pytest.fail("loaded")

    with pytest.raises(InputError, match="does not exist"):
        run_job(tmp_path / "nowhere", tmp_path / "out", JobOptions(), load=load)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["status"], record["pairs"]) == ("failed", [])
    assert "does not exist" in record["error"]


def test_an_unwritable_output_is_told_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(
        OutputError, match=r"output folder .*out cannot be written to .*another output folder"
    ):
        run(write_pairs(tmp_path, 1), failing_for("000", AssertionError()))


def test_an_output_that_becomes_unwritable(tmp_path: Path) -> None:
    def before(pair: CellTissuePair) -> None:
        (tmp_path / "out" / "cell_classification.json").mkdir(exist_ok=True)

    with pytest.raises(OutputError, match="cannot be written"):
        run(write_pairs(tmp_path, 1), FakeDetector(before))
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["status"] == "failed"
    assert "cell_classification.json cannot be written" in record["error"]


def test_the_notice_of_the_detector_is_told_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector = FakeDetector()
    detector.notice = "running on the CPU: no CUDA"
    run(write_pairs(tmp_path, 1), detector)
    out, err = capsys.readouterr()
    assert "running on the CPU: no CUDA" in out
    assert err == ""
    assert written(tmp_path / "out")[1]["device"]["notice"] == "running on the CPU: no CUDA"


def test_warnings_are_told_once_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coarse = entry()
    coarse["tissue"]["resized_mpp_x"] = 1.0
    write_metadata(write_pairs(tmp_path, 2), [coarse, entry(1)])
    run(tmp_path)
    assert capsys.readouterr().err.count("pair 000: the tissue patch has 1 µm per pixel") == 1
    assert len(written(tmp_path / "out")[1]["warnings"]) == 1


def test_warnings_of_the_input_are_kept_though_the_model_cannot_be_loaded(tmp_path: Path) -> None:
    (write_pairs(tmp_path, 1) / "images/cell_patches/notes.txt").write_text("hello")

    def load(options: JobOptions) -> FakeDetector:
        raise ModelError("m: bad")

    with pytest.raises(ModelError):
        run_job(tmp_path, tmp_path / "out", JobOptions(), load=load)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert "notes.txt" in record["warnings"][0]
    assert (record["status"], record["error"]) == ("failed", "m: bad")


def test_the_record_says_why_whatever_the_error_is(tmp_path: Path) -> None:
    write_pairs(tmp_path, 1)

    def load(options: JobOptions) -> FakeDetector:
        raise MemoryError

    with pytest.raises(MemoryError):
        run_job(tmp_path, tmp_path / "out", JobOptions(), load=load)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["error"].startswith("out of memory")


def test_a_record_of_nuclei_is_not_taken_for_one_of_pairs(tmp_path: Path) -> None:
    write_pairs(tmp_path, 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text('{"softctm": "1", "images": []}')
    with pytest.raises(OutputError, match=r"run.json is there already and `softctm predict` did not"):
        run(tmp_path)


def test_the_next_pair_is_read_while_one_computes_and_no_more(tmp_path: Path) -> None:
    """When the detector sees pair i, pair i + 1 gets read beside it, and never pair i + 2."""
    write_pairs(tmp_path, 4)
    alive: weakref.WeakSet[CellTissuePair] = weakref.WeakSet()
    most, reads = [], threading.Semaphore(0)

    def before(pair: CellTissuePair) -> None:
        if pair.name != "003":
            assert reads.acquire(timeout=30), "the next pair was not read meanwhile"
        time.sleep(0.05)
        most.append(len(alive))

    import softctm.readers.source as module

    original = module.PairSource.read

    def read(self: Any, index: int) -> CellTissuePair:
        pair = original(self, index)
        alive.add(pair)
        if index:
            reads.release()
        return pair

    with pytest.MonkeyPatch.context() as patcher:
        patcher.setattr(module.PairSource, "read", read)
        run(tmp_path, FakeDetector(before))
    assert max(most) == 2


def test_files_for_viewers_are_written_for_the_pairs_that_were_done(tmp_path: Path) -> None:
    spoil(write_pairs(tmp_path, 2) / "images/cell_patches/000.png")
    run(tmp_path, allow_partial=True, also=("csv", "overlay", "tissue"))
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").glob("*/*")}
    assert files == {"csv/001.csv", "overlay/001.png", "tissue/001.png"}


def test_files_of_an_earlier_run_do_not_stay_beside_a_new_result(tmp_path: Path) -> None:
    write_pairs(tmp_path, 3)
    run(tmp_path, also=("csv", "tissue"))
    theirs = tmp_path / "out" / "csv" / "notes.csv"
    theirs.write_text("mine")
    # The second pair fails now, and the third is gone.
    for kind in ("cell_patches", "tissue_patches"):
        (tmp_path / "images" / kind / "002.png").unlink()
    write_metadata(tmp_path, [entry(0), entry(1)])
    run(tmp_path, failing_for("001", ValueError("x")), allow_partial=True, also=("csv",))
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").glob("*/*")}
    assert files == {"csv/000.csv", "csv/notes.csv"}


@pytest.mark.parametrize("fault", ["metadata", "model", "interrupted"])
def test_a_run_that_ends_early_does_not_forget_whose_files_are_there(tmp_path: Path, fault: str) -> None:
    write_pairs(tmp_path, 3)
    run(tmp_path, also=("csv", "tissue"))
    if fault == "metadata":
        (tmp_path / "metadata.json").write_text("[")
        for _ in range(2):
            with pytest.raises(InputError, match="not valid JSON"):
                run(tmp_path)
    elif fault == "model":

        def load(options: JobOptions) -> NoReturn:
            raise ModelError("no model")

        with pytest.raises(ModelError, match="no model"):
            run_job(tmp_path, tmp_path / "out", JobOptions(), load=load)
    else:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, failing_for("001", KeyboardInterrupt()))
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["earlier_pairs"] == (["002"] if fault == "interrupted" else ["000", "001", "002"])
    write_metadata(tmp_path, [entry(0), entry(1), entry(2)])
    run(tmp_path, also=("csv",))
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").glob("*/*")}
    assert files == {"csv/000.csv", "csv/001.csv", "csv/002.csv"}
    assert "earlier_pairs" not in json.loads((tmp_path / "out" / "run.json").read_text())


def test_files_that_no_run_wrote_are_left_alone(tmp_path: Path) -> None:
    truth = write_pairs(tmp_path, 1) / "out" / "tissue" / "000.png"
    truth.parent.mkdir(parents=True)
    truth.write_bytes(b"mine")
    run(tmp_path)
    assert truth.read_bytes() == b"mine"


def test_files_for_viewers_are_written_while_the_next_pair_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computing, events = threading.Semaphore(0), []

    def before(pair: CellTissuePair) -> None:
        events.append(f"computes {pair.name}")
        computing.release()

    def write(folder: Path, name: str, pair: CellTissuePair, prediction: Prediction) -> None:
        # Not before the next pair is begun, of which the last has none.
        assert pair.name == "001" or computing.acquire(timeout=60)
        events.append(f"writes {pair.name}")

    monkeypatch.setattr(container, "write_for_viewers", write)
    detector = FakeDetector(lambda pair: before(pair) if pair.name == "001" else None)
    record = run(write_pairs(tmp_path, 2), detector, also=("csv",)).record
    assert events == ["computes 001", "writes 000", "writes 001"]
    assert record.seconds["write_for_viewers"] > 0


@pytest.mark.parametrize("allow_partial", [False, True])
@pytest.mark.parametrize("unwritable", ["000", "002"], ids=["first", "last"])
def test_a_further_file_that_cannot_be_written_is_its_pairs_failure_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unwritable: str, allow_partial: bool
) -> None:
    done = []

    def write(folder: Path, name: str, pair: CellTissuePair, prediction: Prediction) -> None:
        if (pair.name, name) == (unwritable, "csv"):
            raise OutputError(f"{name}/{pair.name}.csv cannot be written")
        done.append((pair.name, name))

    monkeypatch.setattr(container, "write_for_viewers", write)
    with contextlib.ExitStack() as expected_error:
        if not allow_partial:
            message = f"1 of 3 pairs lack a file that --also asked for: {unwritable}; run.json says why"
            expected_error.enter_context(pytest.raises(PartialResultError, match=message))
        run(write_pairs(tmp_path, 3), also=("csv", "geojson"), allow_partial=allow_partial)
    points, record = written(tmp_path / "out")
    assert points == expected(0, 1, 2)
    assert len(done) == 5, "the pair's other file and the other pairs' files are written"
    assert (record["status"], record["error"]) == ("partial", None)
    (failure,) = record["failures"]
    assert failure["error"] == f"pair {unwritable}: csv/{unwritable}.csv cannot be written"
    assert failure["background_cells"] + failure["tumor_cells"] == 1, "its cells are in the result"


@pytest.mark.parametrize(
    ("stem", "fits"),
    [("n" * 235, True), ("界" * 80, True), ("n" * 250, False)],
    ids=["235 letters", "80 Chinese characters", "250 letters"],
)
def test_a_long_name_takes_only_the_files_that_it_does_not_fit(tmp_path: Path, stem: str, fits: bool) -> None:
    write_pairs(tmp_path, 2)
    for kind in ("cell", "tissue"):
        folder = tmp_path / "images" / f"{kind}_patches"
        (folder / "001.png").rename(folder / f"{stem}.png")
    result = run(tmp_path, also=("geojson",), allow_partial=True)
    assert written(tmp_path / "out")[0] == expected(0, 1)
    assert (tmp_path / "out" / "geojson" / "000.geojson").exists()
    assert (tmp_path / "out" / "geojson" / f"{stem[:247]}.geojson").exists() == fits
    assert [failure["name"] for failure in result.record.failures] == ([] if fits else [stem])
    if not fits:
        assert "(File name too long); shorten its name" in result.record.failures[0]["error"]


def test_pairs_that_failed_and_files_that_are_missing_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(write_pairs(tmp_path, 3) / "images/cell_patches/000.png")
    monkeypatch.setattr(container, "write_for_viewers", lambda *arguments: 1 / 0)
    with pytest.raises(
        PartialResultError,
        match=r"1 of 3 pairs failed and are missing from .*: 000, "
        r"2 of 3 pairs lack a file that --also asked for: 001, 002; run\.json says why",
    ):
        run(tmp_path, also=("csv",))
    assert written(tmp_path / "out")[0] == expected(1, 2)


@pytest.mark.parametrize("option", [{"views": 3}, {"quality": "best"}, {"device": "tpu"}, {"also": ("xml",)}])
def test_options_out_of_range(option: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        JobOptions(**option)


def test_quality_is_views_and_cell_networks_and_views_can_be_chosen_apart(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", folds=5)
    asked = {"full": {}, "fast": {"views": 4}, "balanced": {}}
    given = {}
    for quality, more in asked.items():
        options = JobOptions(weights=folder, device="cpu", quality=quality, **more)
        given[quality] = (options.chosen_quality.views, len(load_detector(options).model.cells.networks))
    assert given == {"full": (8, 5), "fast": (4, 3), "balanced": (2, 5)}


def test_run_json_names_the_quality_and_the_views_it_stands_for(tmp_path: Path) -> None:
    run(write_pairs(tmp_path, 1), quality="fast")
    record = written(tmp_path / "out")[1]
    assert (record["options"]["quality"], record["options"]["views"]) == ("fast", 1)


# --- with real networks ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(shared: Path) -> Path:
    return shared / "reference" / "inference"


def by_place(output: Path) -> dict[tuple[Any, ...], float]:
    points = json.loads((output / "cell_classification.json").read_text())["points"]
    return {(p["name"], *p["point"]): p["probability"] for p in points}


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["five_folds", "single_file"])
@pytest.mark.parametrize("form", ["stack", "png"])
def test_reference_points(reference: Path, tmp_path: Path, weights: str, form: str) -> None:
    """The same points and classes as the SoftCTM authors' own program, probabilities within 1e-3."""
    source = reference / "input"
    if form == "png":
        source = tmp_path / "in"
        for kind in ("cell", "tissue"):
            (source / "images" / f"{kind}_patches").mkdir(parents=True)
            with Image.open(reference / f"input/images/{kind}_patches/{kind}s.tif") as whole:
                for i in range(3):
                    crop = whole.crop((0, 1024 * i, 1024, 1024 * (i + 1)))
                    crop.save(source / "images" / f"{kind}_patches" / f"{i}.png", compress_level=1)
        (source / "metadata.json").write_bytes((reference / "input" / "metadata.json").read_bytes())
    run_job(source, tmp_path / "out", JobOptions(weights=reference / weights, device="cpu"))
    ours, theirs = by_place(tmp_path / "out"), by_place(reference / "output")
    assert ours.keys() == theirs.keys()
    assert max(abs(ours[key] - theirs[key]) for key in theirs) < 1e-3


@pytest.mark.slow
def test_twice_on_the_cpu_gives_the_same_bytes(reference: Path, tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        options = JobOptions(weights=reference / "five_folds", device="cpu", views=2)
        run_job(reference / "input", tmp_path / name, options)
        contents.append((tmp_path / name / "cell_classification.json").read_bytes())
    assert contents[0] == contents[1]


def test_one_real_pair_from_the_release(shared: Path, reference: Path, tmp_path: Path) -> None:
    """Fast: one view of one pair, in the release's own layout."""
    for kind in ("cell", "tissue"):
        (tmp_path / "images" / "train" / kind).mkdir(parents=True)
        name = f"images/train/{kind}/001.jpg"
        (tmp_path / name).symlink_to(shared / "ocelot" / name)
    (tmp_path / "metadata.json").symlink_to(shared / "ocelot" / "metadata.json")
    options = JobOptions(weights=reference / "five_folds", device="cpu", views=1)
    result = run_job(tmp_path, tmp_path / "out", options, load_detector(options))
    record = written(tmp_path / "out")[1]
    assert record["input"] == {
        "folder": str(tmp_path), "layout": "OCELOT release, subset train, one image a pair", "pairs": 1
    }  # fmt: skip
    assert set(record["detect_seconds"]) >= {"tissue", "cells"}
    assert set(record["model"]["sha256"]) == {"tissue.onnx", *(f"cell_fold{i}.onnx" for i in range(5))}
    assert result.points[0] is not None


@pytest.mark.slow
@pytest.mark.long
def test_peak_memory_of_130_stacked_pairs(reference: Path, tmp_path: Path) -> None:
    """The whole job, in processes of their own: within 300 MB of three pairs."""
    import subprocess
    import sys

    import tifffile

    process = Path(__file__).resolve().parents[2] / "process.py"
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        f"finally:\n    print('PEAK', {PEAK_MEMORY})\n"
    )
    peaks = {}
    for count in (3, 130):
        folder = tmp_path / str(count)
        for kind, path in stack_paths(folder).items():
            # Detail in a corner only: as many cells a pair as real tissue has, not thousands.
            pixels = np.full((1024 * count, 1024, 3), 240, np.uint8)
            for i in range(count):
                pixels[1024 * i :][:160, :160] = patch(i + 1000 * (kind == "tissue"))[:160, :160]
            tifffile.imwrite(path, pixels, photometric="rgb", rowsperstrip=21, compression="zlib")
        write_metadata(folder, [entry(i, 5) for i in range(count)])
        arguments = ["--input", folder, "--output", folder / "out", "--weights", reference / "five_folds"]
        job = subprocess.run(
            [sys.executable, "-c", code, process, *arguments, "--views", "1", "--device", "cpu"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"{count} of {count} pairs" in job.stdout
        peaks[count] = float(job.stdout.rsplit("PEAK", 1)[1])
    print(f"peak memory: {peaks[3]:.0f} MB for 3 pairs, {peaks[130]:.0f} MB for 130")
    assert peaks[130] - peaks[3] < 300


@pytest.mark.parametrize("name", ["cell_classification.json", "run.json"])
def test_results_of_another_program_are_not_replaced_unless_asked(tmp_path: Path, name: str) -> None:
    write_pairs(tmp_path, 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text('{"theirs": 1}')
    with pytest.raises(OutputError, match=rf"{name} is there already.*--overwrite"):
        run(tmp_path)
    assert (tmp_path / "out" / name).read_text() == '{"theirs": 1}'
    assert run(tmp_path, overwrite=True).points[0] is not None
    assert run(tmp_path).points[0] is not None  # now they are this program's own
