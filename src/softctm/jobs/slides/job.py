"""The job for one slide: look, plan, compute what is missing, write."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softctm import __version__
from softctm.errors import SlideError
from softctm.inference.detector_options import DetectorOptions
from softctm.inference.stage_times import timed
from softctm.jobs.run_record import model_entry, versions
from softctm.jobs.slides.engine import (
    Engine,
    EngineFacts,
    FieldDone,
    LocalEngine,
    SlideDetector,
    SlideWork,
)
from softctm.jobs.slides.options import SlideOptions
from softctm.jobs.slides.plan import SlidePlan
from softctm.jobs.slides.state import SlideState, with_embeddings
from softctm.jobs.slides.tasks import RESULT_FILES, FinishedSlide, SlideTask
from softctm.options import recorded
from softctm.slides.identity import slide_identity
from softctm.slides.listing import SlideInput
from softctm.slides.mask import Overview, detail_of, read_overview, tissue_mask
from softctm.slides.opening import open_slide
from softctm.slides.region import Region
from softctm.slides.result_folder import RECORD_FILE
from softctm.slides.slide import Slide
from softctm.storage.files import write_json_atomically
from softctm.writers.embedding_files import need_embeddings

_logger = logging.getLogger(__name__)


@dataclass
class SlideWatcher:
    """Who is told what happens on a slide.

    Attributes
    ----------
    planned : callable
        Called with the plan, once it is known, and the expected seconds.
    field_done : callable
        Called with the kind of each field that is done.
    """

    planned: Callable[[SlidePlan, float], None] = lambda plan, seconds: None
    field_done: FieldDone = lambda kind: None


def process_slide(
    given: SlideInput,
    folder: Path,
    engine: Engine,
    options: SlideOptions,
    watcher: SlideWatcher,
) -> dict[str, Any]:
    """Look at a slide and write its results; what an earlier run left is gone on with.

    Parameters
    ----------
    given : SlideInput
    folder : Path
        Of this slide's results.
    engine : Engine
    options : SlideOptions
    watcher : SlideWatcher

    Returns
    -------
    dict
        What `slide.json` holds.

    Raises
    ------
    SlideError
        If the slide cannot be used, or the folder holds results of something else.
    OutputError
        If a result cannot be written.
    """
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    facts, task = engine.facts, engine.facts.task
    formats = tuple(dict.fromkeys((*task.always, *options.also)))
    with timed(seconds, "open"):
        identity = slide_identity(given.path)
        slide = open_slide(given.path, given.mpp)
    with slide:
        region = Region.read(given.region) if given.region is not None else None
        if region is not None:
            region.check_on_slide(slide.width, slide.height)
        key = slide_key(identity, slide, region, facts)
        # What was computed with embeddings serves a run that does not want them, not the other way round.
        wanted = need_embeddings(options.also)
        choices = (wanted,) if wanted or options.overwrite else (False, True)
        state = SlideState.taken_up(folder, [with_embeddings(key, choice) for choice in choices])
        state.begin(options.overwrite, RESULT_FILES)
        warnings = list(slide.warnings_at(task.mpp))
        for warning in warnings:
            _logger.warning("%s", warning)
        with timed(seconds, "look"):
            done = _look(slide, state, region, task)
        record = state.record()
        if record is not None and _is_complete(done, task, formats):
            return _completed(record, done, task, formats, watcher)
        plan = done.plan
        watcher.planned(plan, facts.seconds_for(plan))
        if not plan.chosen.any():
            warnings.append(f"{slide.path}: holds no tissue, or the region none of it; nothing is looked for")
            _logger.warning("%s", warnings[-1])
        work = SlideWork(given.path, given.mpp, folder, state.key)
        seconds |= engine.run(work, slide, plan, watcher.field_done)
        if slide_identity(given.path) != identity:
            raise SlideError(f"{given.path}: changed while it was read; run again")
        with timed(seconds, "results"):
            numbers = task.write_results(done, formats)
    seconds["total"] = time.perf_counter() - start
    record = {
        "softctm": __version__,
        "status": "complete",
        "slide": {
            "path": str(given.path),
            "format": slide.format,
            "width": slide.width,
            "height": slide.height,
            "mpp": list(slide.mpp),
            "origin": list(slide.origin),
        },
        **numbers,
        "fields": plan.field_counts,
        "seconds": {stage: round(spent, 3) for stage, spent in seconds.items()},
        "warnings": warnings,
        "device": {"used": facts.device, "notice": facts.notice, "workers": facts.workers},
        "model": model_entry(facts.model),
        "options": {
            **recorded(facts.options),
            "mpp": given.mpp,
            "region": str(given.region) if given.region else None,
            "also": list(options.also),
        },
        "versions": versions(),
        "key": state.key,
    }
    write_json_atomically(folder / RECORD_FILE, record, indent=1)
    _drop(state, task)
    return record


def compute_slide(
    slide: Slide, detector: SlideDetector, folder: Path, region: Region | None, *, embeddings: bool = False
) -> FinishedSlide:
    """Compute all stretches of a slide, on wish with embeddings, into a state in a folder; write no results.

    Raises
    ------
    SlideError
        If the slide cannot be read, or `folder` holds something else.
    OutputError
        If `folder` cannot be written to.
    """
    engine = LocalEngine(detector, DetectorOptions())
    key = with_embeddings(slide_key(slide_identity(slide.path), slide, region, engine.facts), embeddings)
    state = SlideState(folder, key)
    state.begin()
    done = _look(slide, state, region, engine.facts.task)
    engine.run(SlideWork(slide.path, None, folder, key), slide, done.plan, lambda kind: None)
    return done


def slide_key(
    identity: dict[str, Any], slide: Slide, region: Region | None, facts: EngineFacts
) -> dict[str, Any]:
    """Everything that a slide's results depend on."""
    model = facts.model
    return {
        "slide": identity,
        "mpp": list(slide.mpp),
        **({"origin": list(slide.origin)} if any(slide.origin) else {}),
        "region": region.digest if region is not None else None,
        "model": {
            "name": model.name,
            "version": model.version,
            "sha256": model.hashes,
            **facts.task.key(),
            "postprocessing": str(model.postprocessing),
        },
        "precision": model.precision,
        "number_of_views": facts.views,
        "device": facts.device,
        "version_of_softctm": __version__,
    }


def _look(slide: Slide, state: SlideState, region: Region | None, task: SlideTask) -> FinishedSlide:
    """See where the tissue is, and plan; the overview is kept, for a slide without levels is slow to see."""
    image = state.array("overview")
    if image is None:
        overview = read_overview(slide)
        state.write_array("overview", overview.image)
    else:
        overview = Overview(image, detail_of(slide))
    mask = tissue_mask(overview.at_mask())
    return FinishedSlide(slide, state, task.plan(slide, mask, region), overview, mask, region)


def _is_complete(done: FinishedSlide, task: SlideTask, formats: Sequence[str]) -> bool:
    """Whether what an earlier run finished is still there, with what further formats are made of."""
    kept = [stretch for stretch in done.plan.stretches if stretch.kind not in task.passing]
    files = (*(task.formats[name] for name in task.always), *task.other_files)
    has_files = all((done.state.folder / name).is_file() for name in files)
    return has_files and (
        not _missing(done, task, formats) or all(done.state.is_done(stretch) for stretch in kept)
    )


def _missing(done: FinishedSlide, task: SlideTask, formats: Sequence[str]) -> list[str]:
    """Formats that are not written yet."""
    return [name for name in formats if not (done.state.folder / task.formats[name]).is_file()]


def _completed(
    record: dict[str, Any],
    done: FinishedSlide,
    task: SlideTask,
    formats: Sequence[str],
    watcher: SlideWatcher,
) -> dict[str, Any]:
    """A slide that an earlier run finished: write what further formats were asked for."""
    if missing := _missing(done, task, formats):
        task.write(done, missing)
        also = record["options"]["also"]
        record["options"]["also"] = [*also, *(name for name in missing if name not in also)]
        write_json_atomically(done.state.folder / RECORD_FILE, record, indent=1)
    watcher.planned(done.plan, 0.0)
    for kind, count in done.plan.field_counts.items():
        for _ in range(count):
            watcher.field_done(kind)
    _drop(done.state, task)
    return record


def _drop(state: SlideState, task: SlideTask) -> None:
    """Forget what was needed only on the way to the results."""
    for kind in task.passing:
        state.drop(kind)
