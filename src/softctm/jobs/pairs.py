"""The job: from an input folder to `cell_classification.json`, one pair after the other.

`process.py`, `softctm predict` and the invoke server all run this. While one pair computes, one thread
decodes the next and another writes what viewers want of the last: two pairs, or three, are in memory.
Whatever goes wrong, what was computed is written; where the process is killed outright, all but the last
half minute's.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from softctm.errors import InputError, ModelError, OutputError, PartialResultError, SoftCTMError
from softctm.files import prepare_folder, write_json_atomically
from softctm.jobs import run_record
from softctm.jobs.background import Background
from softctm.jobs.options import JobOptions
from softctm.jobs.run_record import RunRecord
from softctm.options import recorded
from softctm.pair import CellTissuePair
from softctm.points import CellClass, CellPoints
from softctm.progress import Progress
from softctm.readers import PairSource, open_pairs
from softctm.writers import grand_challenge
from softctm.writers.viewers import FROM_MAPS, write_for_viewers

if TYPE_CHECKING:
    from softctm.inference.detector import Prediction
    from softctm.model import Model


class PairDetector(Protocol):
    """What the job needs of a `softctm.inference.detector.Detector`."""

    @property
    def device(self) -> str:
        """Where the networks really run."""

    notice: str | None
    seconds: dict[str, float]
    model: Model

    def predict(self, pair: CellTissuePair, *, maps: bool = False) -> Prediction:
        """Find the cells of one pair."""


_WRITE_EVERY_S = 30.0
"""How often what is done is written while the job goes on: a process may be killed without a word."""


@dataclass
class JobResult:
    """The outcome of a job.

    Attributes
    ----------
    points : list of CellPoints or None
        One a pair in input order; None for a pair that failed.
    record : RunRecord
        What `run.json` says.
    result_file : Path
        Where the points were written.
    failures : list of exception types
        One a pair that failed. The exceptions themselves would keep their pairs' images in memory.
    """

    points: list[CellPoints | None]
    record: RunRecord
    result_file: Path
    failures: list[type[Exception]] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """One line for the user."""
        found = [cells for cells in self.points if cells is not None]
        counts = {kind: sum(cells.count(kind) for cells in found) for kind in CellClass}
        return (
            f"{self.result_file}: {len(found)} of {len(self.record.pairs)} pairs, "
            f"{counts[CellClass.BACKGROUND]} background cells, {counts[CellClass.TUMOR]} tumor cells, "
            f"{self.record.seconds.get('total', 0.0):.1f} s"
        )


def load_detector(options: JobOptions) -> PairDetector:
    """Load the networks that `options` ask for; see `softctm.inference.load.open_detector`."""
    from softctm.inference.load import open_detector  # slow to import: bad input is told before

    detector: PairDetector = open_detector(options)
    return detector


def run_job(
    input_dir: Path,
    output_dir: Path,
    options: JobOptions,
    detector: PairDetector | None = None,
    load: Callable[[JobOptions], PairDetector] = load_detector,
) -> JobResult:
    """Find the cells of every pair under `input_dir` and write the result to `output_dir`.

    Writes `cell_classification.json` once at least one pair is done, and `run.json` in every case that
    leaves the folder writable; also when a pair fails and when the job is interrupted.

    Parameters
    ----------
    input_dir, output_dir : Path
        The output folder is created where it is missing.
    options : JobOptions
        The user's choices.
    detector : PairDetector, optional
        Loaded networks to use, for several jobs in a row; by default `load(options)`.

    Raises
    ------
    InputError, ModelError, DeviceError, OutputError
        If the job as a whole fails, or no pair could be processed.
    PartialResultError
        If the result was written but lacks a pair, unless `options.allow_partial`.
    KeyboardInterrupt
        If it was interrupted, after what was done has been written.
    """
    start = time.perf_counter()
    record = RunRecord(_recorded(options))
    result = JobResult([], record, output_dir / grand_challenge.FILE_NAME)
    prepare_folder(output_dir)
    try:
        with _timed(record, "open_input"):
            source = open_pairs(input_dir, options.subset)
        record.input = {"folder": str(input_dir), "layout": source.layout, "pairs": len(source)}
        result.points = [None] * len(source)
        with _timed(record, "load_model"):
            detector = detector or load(options)
        record.device = {
            "asked": options.device,
            "used": detector.device,
            "precision": detector.model.precision,
            "notice": detector.notice,
        }
        record.model = run_record.model_entry(detector.model)
        before = dict(detector.seconds)
        with Progress(len(source), "pair") as progress:
            progress.say(f"{len(source)} pairs ({source.layout}), model {record.model['name']}")
            progress.say(detector.notice or f"running on {detector.device}")
            try:
                _detect(source, detector, options, result, progress, start)
            finally:
                record.detect_seconds = {k: v - before[k] for k, v in detector.seconds.items()}
        if not any(points is not None for points in result.points):
            raise _nothing_done(result)
        record.status = "partial" if result.failures else "complete"
    except KeyboardInterrupt:
        record.status = "interrupted"
        raise
    except Exception as error:
        record.status = "failed"
        if isinstance(error, SoftCTMError):
            record.error = str(error)
        raise
    finally:
        _write(result, start)
    if result.failures and not options.allow_partial:
        raise PartialResultError(_partial_message(result))
    return result


def _detect(
    source: PairSource,
    detector: PairDetector,
    options: JobOptions,
    result: JobResult,
    progress: Progress,
    start: float,
) -> None:
    """Process every pair; a failure is noted and told, and does not stop the others."""
    record, told, written = result.record, 0, time.perf_counter()
    with contextlib.closing(_read_ahead(source, record)) as pairs, Background("write") as writing:
        for index, (name, read) in enumerate(pairs):
            begin = time.perf_counter()
            try:
                pair = read.result()
                with _timed(record, "detect"):
                    prediction = detector.predict(pair, maps=bool(FROM_MAPS.intersection(options.also)))
            except ModelError:  # of the model, and so of every pair
                raise
            except Exception as error:
                message = _failure_message(name, error)
                result.failures.append(type(error))
                record.add_failure(index, name, message)
                progress.complain(f"warning: {message}")
                if options.debug:
                    progress.complain("".join(traceback.format_exception(error)).rstrip())
                outcome = "failed"
            else:
                cells = result.points[index] = prediction.points
                if options.also:
                    writing.begin(_write_for_viewers, result, options.also, pair, prediction)
                record.add_cells(index, name, cells, time.perf_counter() - begin)
                outcome = f"{cells.count(CellClass.BACKGROUND)} BC, {cells.count(CellClass.TUMOR)} TC"
            record.warnings = list(source.warnings)
            for warning in record.warnings[told:]:
                progress.complain(f"warning: {warning}")
            told = len(record.warnings)
            progress.step(f"{name}: {outcome}")
            if time.perf_counter() - written > _WRITE_EVERY_S:
                record.status = "unfinished"
                try:
                    _write(result, start)
                except OutputError as error:  # the disk may have room again by the end
                    progress.complain(f"warning: {error}")
                written = time.perf_counter()


def _read_ahead(
    source: PairSource, record: RunRecord
) -> Generator[tuple[str, Future[CellTissuePair]], None, None]:
    """Each pair's name and its reading, the next one already begun in a thread while this one is used."""

    def read(index: int) -> CellTissuePair:
        with _timed(record, "read"):
            return source.read(index)

    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read")
    try:
        following = executor.submit(read, 0)
        for index, name in enumerate(source.names):
            current = following
            with _timed(record, "wait_for_input"):
                current.exception()  # wait, so that no third pair is ever in memory
            if index + 1 < len(source):
                following = executor.submit(read, index + 1)
            yield name, current
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _write_for_viewers(
    result: JobResult, formats: Sequence[str], pair: CellTissuePair, prediction: Prediction
) -> None:
    with _timed(result.record, "write_for_viewers"):
        for name in formats:
            write_for_viewers(result.result_file.parent, name, pair, prediction)


def _write(result: JobResult, start: float) -> None:
    """Write the points, if any pair was done, and the record."""
    with _timed(result.record, "write"):
        if any(points is not None for points in result.points):
            write_json_atomically(result.result_file, grand_challenge.points_document(result.points))
    result.record.seconds["total"] = time.perf_counter() - start
    record_file = result.result_file.with_name(run_record.FILE_NAME)
    write_json_atomically(record_file, result.record.document(), indent=1)


def _failure_message(name: str, error: Exception) -> str:
    """One line that names the pair."""
    text = str(error) or type(error).__name__
    if not isinstance(error, SoftCTMError):
        text = f"unexpected {type(error).__name__}: {' '.join(text.split())} (--debug shows where)"
    return text if f"pair {name}" in text else f"pair {name}: {text}"


def _nothing_done(result: JobResult) -> SoftCTMError:
    """The error of a job in which every pair failed: of the pairs' own kind where they agree."""
    kinds = set(result.failures)
    kind = kinds.pop() if len(kinds) == 1 else InputError
    first = result.record.failures[0]["error"]
    others = f" (and {len(result.failures) - 1} more, see run.json)" if len(result.failures) > 1 else ""
    if not issubclass(kind, SoftCTMError):
        kind = SoftCTMError
    return kind(f"no pair could be processed: {first}{others}")


def _partial_message(result: JobResult) -> str:
    """Name the pairs that are missing."""
    names = [str(failure["name"]) for failure in result.record.failures]
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return (
        f"{len(names)} of {len(result.points)} pairs failed and are missing from {result.result_file}: "
        f"{shown}; run.json says why (--allow-partial accepts this)"
    )


def _recorded(options: JobOptions) -> dict[str, Any]:
    """Options as `run.json` holds them."""
    return recorded(options) | {"views": options.chosen_quality.views}


@contextlib.contextmanager
def _timed(record: RunRecord, stage: str) -> Iterator[None]:
    begin = time.perf_counter()
    try:
        yield
    finally:
        record.add_seconds(stage, time.perf_counter() - begin)
