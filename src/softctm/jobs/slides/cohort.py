"""The job for many slides: one after the other, a bad one never costs the others."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from softctm.errors import (
    DeviceError,
    MissingPackageError,
    ModelError,
    OutputError,
    PartialResultError,
    SoftCTMError,
    UsageError,
)
from softctm.jobs.failures import nothing_done, some
from softctm.jobs.output_lock import output_lock
from softctm.jobs.slides.engine import Engine
from softctm.jobs.slides.engine_choice import open_engine
from softctm.jobs.slides.job import SlideWatcher, process_slide
from softctm.jobs.slides.options import SlideOptions
from softctm.jobs.slides.plan import SlidePlan
from softctm.jobs.slides.tasks import OVERVIEW_FILE, SlideTask, check_formats
from softctm.progress import SILENT, Progress, Task, counted, duration
from softctm.slides.listing import PAGE_FILE, TABLE_FILE, SlideInput, find_slides
from softctm.slides.region import Region
from softctm.storage.files import (
    beginning_of,
    prepare_folder,
    refuse_foreign_files,
    remove_left_overs,
    write_bytes_atomically,
)
from softctm.terminal.unexpected import as_expected
from softctm.writers.cohort_page import PAGE_GENERATOR, cohort_page
from softctm.writers.cohort_table import TABLE_START, CohortRow, cohort_csv

_logger = logging.getLogger(__name__)

_SAME_WITH_THE_NEXT = (OutputError, UsageError, MissingPackageError, ModelError, DeviceError)
"""What is no slide's fault."""


@dataclass
class CohortResult:
    """The outcome of a run.

    Attributes
    ----------
    folder : Path
    task : SlideTask
        What was looked for.
    rows : list of CohortRow
        One a slide, in the order given.
    failures : list of exception types
        Not the exceptions themselves, which would keep their slides' images in memory.
    """

    folder: Path
    task: SlideTask
    rows: list[CohortRow]
    failures: list[type[SoftCTMError]] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """One line for the user."""
        done = [row.record for row in self.rows if row.record is not None]
        slides = counted(len(self.rows), "slide")
        return f"{self.folder / TABLE_FILE}: {len(done)} of {slides}, {self.task.words(done)}"


def run_cohort(
    inputs: Sequence[Path],
    output: Path,
    options: SlideOptions,
    make_engine: Callable[[SlideOptions], Engine] = open_engine,
    progress: Progress = SILENT,
) -> CohortResult:
    """Look at all slides that `inputs` name, and write one folder per slide, a table and a page.

    What is done is kept whatever happens: the same call goes on where another one ended.

    Parameters
    ----------
    inputs : sequence of Path
        See `softctm.slides.listing.find_slides`.
    output : Path
        Created where it is missing.
    options : SlideOptions
    make_engine : callable
    progress : Progress

    Raises
    ------
    InputError, ModelError, DeviceError, OutputError
        If the run as a whole fails, or no slide could be processed.
    PartialResultError
        If some slides failed; the others' results are written.
    KeyboardInterrupt
        If it was interrupted; what was done stays.
    """
    if options.region is not None:
        Region.read(options.region)  # or every slide would fail, and lose its line in the table
    listing = find_slides(inputs, options.mpp, options.region, output)
    tables = (output / TABLE_FILE, output / PAGE_FILE)
    refuse_foreign_files(tables, "slides", _is_ours, options.overwrite)
    prepare_folder(output)
    with output_lock(output):
        remove_left_overs(output)
        engine = make_engine(options)
        try:
            facts = engine.facts
            check_formats(facts.task, facts.model, options.also)
            rows = [CohortRow(slide.name, str(slide.path)) for slide in listing.slides]
            result = CohortResult(output, facts.task, rows)
            for line in listing.passed_over:
                _logger.warning("%s", line)
            _say_what_runs(engine, len(rows), options)
            _run(listing.slides, engine, options, result, progress)
        finally:
            engine.close()
    return _judged(result)


def _run(
    slides: Sequence[SlideInput],
    engine: Engine,
    options: SlideOptions,
    result: CohortResult,
    progress: Progress,
) -> None:
    """Process every slide, each with its own progress beside that of all."""

    def process(slide: SlideInput) -> dict[str, Any]:
        return _one(slide, result.folder, engine, options, progress)

    with progress.task(len(slides), "slide") as task:
        _run_all(slides, process, engine, result, task)


def _run_all(
    slides: Sequence[SlideInput],
    process: Callable[[SlideInput], dict[str, Any]],
    engine: Engine,
    result: CohortResult,
    task: Task,
) -> None:
    """A failure is noted and told, and does not stop the others."""
    outcomes = (_one_by_one if engine.facts.workers == 1 else _two_at_once)(slides, process, engine)
    with contextlib.closing(outcomes), contextlib.ExitStack() as at_the_end:
        at_the_end.callback(_write_tables, result)
        for index, outcome in outcomes:
            row = result.rows[index]
            try:
                row.record = outcome()
                words = f"{result.task.words([row.record])}, {row.record['tissue_mm2']:.2f} mm² of tissue"
            except _SAME_WITH_THE_NEXT:
                raise
            except Exception as error:
                row.error, words = _failure_message(row.path, error), "failed"
                result.failures.append(type(as_expected(error)))
                _logger.warning("%s", row.error, exc_info=error)
            task.step(f"{row.name}: {words}")
            write_bytes_atomically(result.folder / TABLE_FILE, cohort_csv(result.rows, result.task.columns))


Outcomes = Generator[tuple[int, Callable[[], dict[str, Any]]], None, None]


def _one_by_one(
    slides: Sequence[SlideInput], process: Callable[[SlideInput], dict[str, Any]], engine: Engine
) -> Outcomes:
    for index, slide in enumerate(slides):
        yield index, partial(process, slide)


def _two_at_once(
    slides: Sequence[SlideInput], process: Callable[[SlideInput], dict[str, Any]], engine: Engine
) -> Outcomes:
    """For a cluster: while one slide is looked at or written, the other's stretches compute."""
    pool = ThreadPoolExecutor(2, thread_name_prefix="slide")
    try:
        running = {pool.submit(process, slide): index for index, slide in enumerate(slides)}
        for future in as_completed(running):
            yield running[future], future.result
    except BaseException:
        engine.close()  # or the slides that are under way would be waited for
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _one(
    slide: SlideInput, folder: Path, engine: Engine, options: SlideOptions, progress: Progress
) -> dict[str, Any]:
    """Process one slide and tell of it."""
    with contextlib.ExitStack() as stack:
        watcher = SlideWatcher()

        def planned(plan: SlidePlan, seconds: float) -> None:
            counts = plan.field_counts
            if seconds:
                shown = " and ".join(f"{count} for {kind}" for kind, count in counts.items())
                _logger.info("%s: fields: %s, about %s", slide.name, shown, duration(seconds))
            task = progress.task(sum(counts.values()), "field", slide.name)
            fields = stack.enter_context(task)
            watcher.field_done = lambda kind: fields.step()

        watcher.planned = planned
        return process_slide(slide, folder / slide.name, engine, options, watcher)


def _say_what_runs(engine: Engine, slides: int, options: SlideOptions) -> None:
    facts = engine.facts
    resolved = facts.options.quality
    chosen = "" if options.quality == resolved else f", the default on {facts.device}"
    _logger.info(
        "%s",
        f"{counted(slides, 'slide')}, model {facts.model.name}, quality {resolved}{chosen}; "
        f"about {facts.seconds_a_mm2:.1f} s a mm² of tissue",
    )
    where = (
        f"{facts.workers} workers on {facts.device}" if facts.workers > 1 else f"running on {facts.device}"
    )
    _logger.info("%s", facts.notice or where)


def _write_tables(result: CohortResult) -> None:
    """The table and the page, as far as they are known."""
    write_bytes_atomically(result.folder / TABLE_FILE, cohort_csv(result.rows, result.task.columns))
    overviews = {row.name: result.folder / row.name / OVERVIEW_FILE for row in result.rows if row.record}
    write_bytes_atomically(
        result.folder / PAGE_FILE, cohort_page(result.rows, overviews, result.task.columns)
    )


def _is_ours(path: Path) -> bool:
    """Whether a table or page is of an earlier run."""
    start = beginning_of(path)
    return start.startswith(TABLE_START) if path.name == TABLE_FILE else PAGE_GENERATOR in start


def _judged(result: CohortResult) -> CohortResult:
    """The result, or the error that it is."""
    if not result.failures:
        return result
    if len(result.failures) == len(result.rows):
        first = next(row.error for row in result.rows if row.error)
        raise nothing_done("slide", result.failures, first, TABLE_FILE)
    failed = [row.name for row in result.rows if row.error]
    raise PartialResultError(
        f"{len(failed)} of {len(result.rows)} slides failed: {some(failed)}; "
        f"{result.folder / TABLE_FILE} says why"
    )


def _failure_message(path: str, error: Exception) -> str:
    """One line that names the slide."""
    text = str(as_expected(error))
    return text if path in text else f"{path}: {text}"
