"""Stretches on the workers of a Dask cluster: a local one, or whatever scheduler there is."""

from __future__ import annotations

import json
import logging
import os
import threading
import uuid
from dataclasses import dataclass, replace
from typing import Any

import distributed

from softctm.errors import DeviceError, ModelError, SlideError, UsageError
from softctm.inference.detector_options import DetectorOptions
from softctm.jobs.slides.engine import (
    EngineFacts,
    FieldDone,
    SlideDetector,
    SlideWork,
    begin_work,
    load_slide_detector,
    measured_facts,
    tell_of_stored,
)
from softctm.jobs.slides.options import SlideOptions
from softctm.jobs.slides.plan import SlidePlan, Stretch
from softctm.jobs.slides.state import SlideState
from softctm.jobs.slides.stretches import Seconds
from softctm.model import find_weights
from softctm.slides import Slide, open_slide

_LOST = (
    distributed.client.FutureCancelledError,
    distributed.client.FuturesCancelledError,
    distributed.comm.core.CommClosedError,
)
"""How Dask says that the scheduler is gone."""

_PATIENCE_S = 600
"""How long to wait for the first worker, which may stand in a queue."""


class ClusterEngine:
    """Sends stretches to workers, who store them where all can see them: slides, model and output folder
    must have the same paths on every machine.

    Raises
    ------
    UsageError
        If the scheduler does not answer.
    DeviceError
        If no worker comes.
    """

    def __init__(self, options: SlideOptions) -> None:
        for name in ("distributed", "distributed.client"):  # what went wrong is told in one line
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._cluster: Any = None
        try:
            if options.workers is not None:
                self._cluster = distributed.LocalCluster(
                    n_workers=options.workers,
                    threads_per_worker=1,
                    dashboard_address=None,
                    memory_limit=None,
                    silence_logs=logging.CRITICAL,
                )
                self._client = distributed.Client(self._cluster)
            else:
                self._client = distributed.Client(options.scheduler, timeout="30s")
        except (OSError, TimeoutError, ValueError) as error:
            if self._cluster is not None:
                self._cluster.close()
            reason = str(error) or type(error).__name__
            if options.workers is not None:
                raise DeviceError(f"--workers {options.workers}: could not be started ({reason})") from error
            raise UsageError(
                f"--scheduler {options.scheduler}: does not answer ({reason}); check the address"
            ) from error
        try:
            self._client.wait_for_workers(1, timeout=_PATIENCE_S)
            options = replace(options, weights=find_weights(options.weights).absolute())
            self.facts = self._client.submit(_probe, options, pure=False).result()
            self.facts = replace(self.facts, workers=self._worker_count())
            self._setup = _Setup(self.facts.options, options.workers)
        except TimeoutError as error:
            self.close()
            raise DeviceError(
                f"no worker came within {_PATIENCE_S} s; start some at the scheduler"
            ) from error
        except BaseException:
            self.close()
            raise

    def run(self, work: SlideWork, slide: Slide, plan: SlidePlan, field_done: FieldDone) -> Seconds:
        """See `softctm.jobs.slides.engine.Engine.run`."""
        # Workers may have begun in another folder.
        work = replace(work, path=work.path.absolute(), folder=work.folder.absolute())
        state = SlideState(work.folder, work.key)
        tell_of_stored(plan, state, field_done)
        run_id = uuid.uuid4().hex[:8]
        sent: dict[str, Any] = {}
        stretches = {stretch.name: stretch for stretch in plan.stretches}
        for name, stretch in stretches.items():
            if state.is_done(stretch):
                continue
            sent[name] = self._client.submit(
                _compute,
                self._setup,
                work,
                stretch,
                self.facts.model.hashes,
                self.facts.device,
                [sent[before] for before in plan.needs.get(name, ()) if before in sent],
                key=f"{name}-{work.folder.name}-{run_id}",
            )
        names = {future.key: name for name, future in sent.items()}
        total: Seconds = {}
        try:
            for future in distributed.as_completed(list(sent.values())):
                for stage, seconds in self._result(future, work).items():
                    total[stage] = total.get(stage, 0.0) + seconds
                stretch = stretches[names[future.key]]
                for _ in stretch.fields:
                    field_done(stretch.kind)
        finally:
            self._client.cancel(list(sent.values()))
        return total

    def close(self) -> None:
        """See `softctm.jobs.slides.engine.Engine.close`."""
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()

    def _worker_count(self) -> int:
        return max(1, len(self._client.scheduler_info(n_workers=-1)["workers"]))

    def _result(self, future: Any, work: SlideWork) -> Seconds:
        try:
            seconds: Seconds = future.result()
            return seconds
        except distributed.KilledWorker as error:
            raise SlideError(
                f"{work.path}: workers died again and again at one stretch of it; they may lack memory"
            ) from error
        except _LOST as error:
            raise DeviceError(
                "the scheduler was lost; start it again: the same command goes on where this one ended"
            ) from error


@dataclass(frozen=True)
class _Setup:
    """What makes a worker's detector: the same for all stretches of a run."""

    options: DetectorOptions
    local_workers: int | None


_PROCESSORS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
"""What this process had before it was bound to its share."""

_lock = threading.Lock()
"""Detectors are not to be called from several threads at once, and a worker may have several."""
_loaded: dict[_Setup, SlideDetector] = {}
_open: dict[str, Slide] = {}
"""By what identifies the file and how it is read: one that replaced another is opened anew."""


def _probe(options: SlideOptions) -> EngineFacts:
    """What a worker computes with; it has the device that decides on quality and precision."""
    chosen = options.for_this_machine()
    with _lock:
        _loaded.clear()  # the model's folder may have changed since an earlier run
        detector = _detector(_Setup(chosen, options.workers))
        facts = measured_facts(detector, chosen)
        _loaded[_Setup(facts.options, options.workers)] = detector  # as stretches will ask for it
        return facts


def _compute(
    setup: _Setup,
    work: SlideWork,
    stretch: Stretch,
    hashes: dict[str, str],
    device: str,
    before: list[Seconds],
) -> Seconds:
    """Compute a stretch and store it; `before` only says that what it needs is stored."""
    with _lock:
        detector = _detector(setup)
        if detector.model.hashes != hashes:
            _loaded.clear()
            detector = _detector(setup)
        if detector.model.hashes != hashes:
            raise ModelError(
                f"{detector.model.folder}: holds another model on {os.uname().nodename}; update it"
            )
        if detector.device != device:
            raise DeviceError(
                f"{os.uname().nodename} has {detector.device} where the others have {device}, which gives "
                "other results; ask for --device cpu, or for like workers"
            )
        slide = _slide(work)
        state = SlideState(work.folder, work.key)
        stretch_work = begin_work(slide, detector, state)
        stretch_work.run([stretch])
        return stretch_work.seconds


def _detector(setup: _Setup) -> SlideDetector:
    if setup not in _loaded:
        if setup.local_workers is not None:
            _bind(int(distributed.get_worker().name), setup.local_workers)
        _loaded.clear()
        _loaded[setup] = load_slide_detector(setup.options)
    return _loaded[setup]


def _slide(work: SlideWork) -> Slide:
    place = json.dumps([str(work.path), work.mpp, work.key["slide"]], sort_keys=True)
    if place not in _open:
        while len(_open) > 1:  # a cohort's slides come one after the other, two at a time
            _open.pop(next(iter(_open))).close()
        _open[place] = open_slide(work.path, work.mpp)
    return _open[place]


def _bind(index: int, count: int) -> None:
    """Keep a local worker to its share of the processors: its networks have as many threads as it sees."""
    if not hasattr(os, "sched_setaffinity"):
        return
    number = len(_PROCESSORS)
    share = [processor for place, processor in enumerate(_PROCESSORS) if place * count // number == index]
    os.sched_setaffinity(0, share or [_PROCESSORS[index % number]])
