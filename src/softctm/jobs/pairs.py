"""The job: from an input folder to `cell_classification.json`, one pair after the other.

`process.py`, `softctm predict` and the invoke server all run this. While one pair computes, one thread
decodes the next and another writes what viewers want of the last: two pairs, or three, are in memory.
Whatever goes wrong, what was computed is written; where the process is killed outright, all but the last
half minute's.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from softctm.errors import ModelError, OutputError, PartialResultError
from softctm.jobs import run_record
from softctm.jobs.background import Background
from softctm.jobs.job_options import JobOptions
from softctm.jobs.pair_result import JobResult
from softctm.jobs.prefetch import read_ahead
from softctm.jobs.run_record import RunRecord
from softctm.options import recorded
from softctm.pair import CellTissuePair
from softctm.points import CellClass
from softctm.progress import SILENT, Progress, counted
from softctm.readers import PairSource, open_pairs
from softctm.storage.files import prepare_folder, refuse_foreign_files
from softctm.writers import grand_challenge
from softctm.writers.viewers import forget_for_viewers, write_for_viewers

if TYPE_CHECKING:
    from softctm.inference.detector import Prediction
    from softctm.model import Model

_logger = logging.getLogger(__name__)


class PairDetector(Protocol):
    """What the job needs of a detector: `Detector`, or `NucleiAsCells`."""

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


def load_detector(options: JobOptions) -> PairDetector:
    """Load the networks that `options` ask for; see `softctm.inference.load.open_cell_detector`."""
    from softctm.inference.load import open_cell_detector  # slow to import: bad input is told before

    detector: PairDetector = open_cell_detector(options, options.as_cells)
    return detector


def run_job(
    input_dir: Path,
    output_dir: Path,
    options: JobOptions,
    detector: PairDetector | None = None,
    load: Callable[[JobOptions], PairDetector] = load_detector,
    progress: Progress = SILENT,
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
    progress : Progress
        Gets a step a pair.

    Raises
    ------
    InputError, ModelError, DeviceError, OutputError
        If the job as a whole fails, or no pair could be processed.
    PartialResultError
        If the result was written but lacks a pair, or a pair's further files, unless
        `options.allow_partial`.
    KeyboardInterrupt
        If it was interrupted, after what was done has been written.
    """
    record = RunRecord(_recorded(options))
    result = JobResult([], record, output_dir / grand_challenge.FILE_NAME)
    prepare_folder(output_dir)
    record_file = output_dir / run_record.FILE_NAME
    earlier = run_record.names_before(record_file, record.unit)
    refuse_foreign_files(
        (record_file, result.result_file),
        "predict",
        lambda _: earlier is not None,
        options.overwrite,
    )
    record.earlier = set(earlier or ())
    try:
        with record.ending():
            with record.timed("open_input"):
                source = open_pairs(input_dir, options.subset)
            record.input = {"folder": str(input_dir), "layout": source.layout, "pairs": len(source)}
            _tell_warnings(source, record)
            result.points = [None] * len(source)
            with record.timed("load_model"):
                detector = detector or load(options)
            pairs = counted(len(source), "pair")
            _logger.info("%s (%s), model %s", pairs, source.layout, detector.model.name)
            record.add_detector(options.device, detector)
            before = dict(detector.seconds)
            # What an earlier run wrote is ours to remove; what else lies there is not.
            _forget(result, record.earlier - set(source.names))
            try:
                _detect(source, detector, options, result, progress)
            finally:
                record.detect_seconds = {k: v - before[k] for k, v in detector.seconds.items()}
            lack = result.error()
            if lack is not None and not isinstance(lack, PartialResultError):
                raise lack
            record.status = "partial" if lack else "complete"
    finally:
        result.write()
    if lack is not None and not options.allow_partial:
        raise lack
    return result


def _detect(
    source: PairSource,
    detector: PairDetector,
    options: JobOptions,
    result: JobResult,
    progress: Progress,
) -> None:
    """Process every pair; a failure is noted and told, and does not stop the others."""
    record, written = result.record, time.perf_counter()
    unwritten: list[tuple[int, str, Exception]] = []

    def read(index: int) -> CellTissuePair:
        with record.timed("read"):
            return source.read(index)

    def write_further(index: int, pair: CellTissuePair, prediction: Prediction) -> None:
        with record.timed("write_for_viewers"):
            for name in options.also:
                try:
                    write_for_viewers(result.result_file.parent, name, pair, prediction)
                except Exception as error:
                    unwritten.append((index, pair.name, error))

    def fail(index: int, name: str, error: Exception) -> None:
        message = result.fail(index, name, error)
        # Tracebacks hold the pair's images: only where somebody wants them.
        _logger.warning("%s", message, exc_info=error if _logger.isEnabledFor(logging.DEBUG) else None)

    def fail_unwritten() -> None:
        while unwritten:
            fail(*unwritten.pop(0))

    with (
        contextlib.closing(read_ahead(source.names, read)) as pairs,
        progress.task(len(source), "pair") as task,
        contextlib.ExitStack() as at_end,
    ):
        at_end.callback(fail_unwritten)  # after the last has been written
        writing = at_end.enter_context(Background("write"))
        for index in range(len(source)):
            with record.timed("wait_for_input"):
                name, reading = next(pairs)
            begin = time.perf_counter()
            _forget(result, record.earlier & {name})
            try:
                pair = reading.result()
                with record.timed("detect"):
                    prediction = detector.predict(pair, maps=options.maps)
            except ModelError:  # of the model, and so of every pair
                raise
            except Exception as error:
                fail(index, name, error)
                outcome = "failed"
            else:
                cells = result.points[index] = prediction.points
                record.add_cells(index, name, cells, time.perf_counter() - begin)
                outcome = f"{cells.count(CellClass.BACKGROUND)} BC, {cells.count(CellClass.TUMOR)} TC"
                if options.also:
                    writing.begin(write_further, index, pair, prediction)
            fail_unwritten()
            _tell_warnings(source, record)
            task.step(f"{name}: {outcome}")
            if time.perf_counter() - written > _WRITE_EVERY_S:
                record.status = "unfinished"
                try:
                    result.write()
                except OutputError as error:  # the disk may have room again by the end
                    _logger.warning("%s", error)
                written = time.perf_counter()


def _forget(result: JobResult, names: set[str]) -> None:
    """Remove the files for viewers that an earlier run wrote of pairs."""
    forget_for_viewers(result.result_file.parent, names)
    result.record.earlier -= names


def _tell_warnings(source: PairSource, record: RunRecord) -> None:
    """Note and tell what the input has been warned of since the last time."""
    for warning in source.warnings[len(record.warnings) :]:
        _logger.warning("%s", warning)
    record.warnings = list(source.warnings)


def _recorded(options: JobOptions) -> dict[str, Any]:
    """Options as `run.json` holds them."""
    return recorded(options) | {"views": 1 if options.as_cells else options.chosen_quality.views}
