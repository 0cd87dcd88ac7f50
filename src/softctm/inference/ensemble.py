"""The mean probability map of a stage's networks over the views of an image, computed on the device."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from softctm.errors import ModelError
from softctm.inference.probability_sum import adding_graph, joining_graph, mean_graph, pieces
from softctm.inference.tta import AS_IS, View, turning_graph
from softctm.model.loading import Stage
from softctm.ort.passes.input_pooling import reducing_graph, without_reduction
from softctm.ort.runtime import OutOfDeviceMemoryError, Runtime, Session, Value
from softctm.pair import PATCH_SIZE

_BATCH = {"cpu": 1, "cuda": 8}
"""Views a pass: on a processor more of them only cost memory, a graphics card wants to be filled."""

_STRIPS = {"cpu": 16, "cuda": 1}
"""Strips in which probabilities are added: all that 64 rows take fits into a second-level cache."""


class NotFiniteError(ArithmeticError):
    """A network gave NaN or infinity; the argument is the network's file name."""


class Ensemble:
    """Networks of one stage, loaded; called with an image it gives the mean of their probabilities.

    Parameters
    ----------
    runtime : Runtime
    stage : Stage
        The networks and what they put out.
    views : sequence of View

    Attributes
    ----------
    channels : int or None
        Input channels that the networks want, None where they leave it open.
    classes : int
        Output channels that they give.
    batch : int
        Views in one pass; halved when memory runs out.
    seconds_in_networks : float
        Time spent inside the networks so far, the mean over the threads that call them.

    Raises
    ------
    ModelError
        If a file is altered or not a usable network, or the networks contradict each other.
    """

    def __init__(self, runtime: Runtime, stage: Stage, views: Sequence[View]) -> None:
        self._runtime = runtime
        self._views = tuple(views)
        self._helpers: dict[object, Session] = {}
        self._reduction, self._networks = self._open(stage)
        for session in self._networks:
            _check(session, PATCH_SIZE // self._reduction)
        self.channels = self._agreed("input channels", lambda session: session.inputs[0].shape[1])
        self.classes = self._class_count(len(stage.classes))
        self._fixed_batch = self._agreed("images a batch", lambda session: session.inputs[0].shape[0])
        self.batch = self._fixed_batch or _BATCH[runtime.device]
        self._from_logits = stage.output == "logits"
        self._strips = _STRIPS[runtime.device]
        self._add = self._helper(adding_graph, self.classes, self._from_logits, self._strips)
        self._zero = runtime.value(np.zeros((1, 1, 1, 1), np.float32))
        self.seconds_in_networks = 0.0

    def __call__(self, image: Value) -> Value:
        """Mean probabilities of an image.

        Parameters
        ----------
        image : (1, channels, 1024, 1024) float32, on the device

        Returns
        -------
        (1, classes, 1024, 1024) float32, on the device

        Raises
        ------
        NotFiniteError
            If a network gives NaN or infinity.
        DeviceError
            If memory runs out even for a single view.
        """
        if self._reduction > 1:
            (image,) = self._helper(reducing_graph, self._reduction)(image)
        shares = self._shares()
        sums = self._sums(image, shares)
        self.seconds_in_networks += sum(seconds for _, seconds in sums) / len(shares)
        weight = 1 / (len(self._views) * len(self._networks))
        laid = tuple(total.view for total, _ in sums)
        finish = self._helper(mean_graph, laid, weight, self.classes, self._from_logits)
        mean, check = finish(*(total.value for total, _ in sums), to_host=[1])
        if not np.isfinite(check.numpy()):
            raise NotFiniteError(self._culprit(image))
        return mean

    def _open(self, stage: Stage) -> tuple[int, list[Session]]:
        """By how much all networks begin by reducing an image, and they, without that."""
        shared, opened = 0, []
        for network in stage.networks:  # one by one: together they may take much memory
            content, factor = without_reduction(network.read())
            if factor != (shared or factor):
                whole = [self._runtime.network(each.read(), each.path.name) for each in stage.networks]
                return 1, whole
            shared = factor
            opened.append(self._runtime.network(content, network.path.name))
        return shared, opened

    def _shares(self) -> list[tuple[View, ...]]:
        """The views that each thread takes: neighbors, as evenly as may be."""
        count = min(self._runtime.callers, math.ceil(len(self._views) / (self._fixed_batch or 1)))
        borders = [len(self._views) * share // count for share in range(count + 1)]
        return [self._views[start:stop] for start, stop in pairwise(borders)]

    def _sums(self, image: Value, shares: Sequence[tuple[View, ...]]) -> list[tuple[_Laid, float]]:
        """The sum of each share, side by side; an interrupt or a failure ends all of them soon."""
        # Threads in one session share its workers, so they begin with different networks.
        turns = [len(self._networks) * share // len(shares) for share in range(len(shares))]
        orders = [self._networks[turn:] + self._networks[:turn] for turn in turns]
        stop = threading.Event()
        with ThreadPoolExecutor(len(shares)) as pool:
            sums = [
                pool.submit(self._sum, image, stop, views, networks)
                for views, networks in zip(shares, orders, strict=True)
            ]
            try:
                done, _ = wait(sums, return_when=FIRST_EXCEPTION)
                for ended in done:
                    ended.result()
                return [ended.result() for ended in sums]
            finally:
                stop.set()

    def _sum(
        self, image: Value, stop: threading.Event, views: tuple[View, ...], networks: Sequence[Session]
    ) -> tuple[_Laid, float]:
        """The sum over some views and all networks, and the seconds spent inside the networks."""
        laid, total = _Laid(image, AS_IS), _Laid(self._zero, AS_IS)
        seconds, done = 0.0, 0
        while done < len(views):
            some = views[done : done + self.batch]
            try:
                laid, total, spent = self._pass(laid, total, some, networks, stop)
            except OutOfDeviceMemoryError:
                if self._fixed_batch or len(some) == 1:
                    raise
                self.batch = min(self.batch, len(some) // 2)
                continue
            seconds += spent
            done += len(some)
        return total, seconds

    def _class_count(self, named: int) -> int:
        """Output channels that the networks give, which must be as many as the manifest names, if it does."""
        given = self._agreed("classes", lambda session: session.outputs[0].shape[1])
        name = self._networks[0].name
        if given is None and not named:
            raise ModelError(f"{name}: does not say how many classes it gives; write a model.json")
        if given is not None and named not in (0, given):
            raise ModelError(f"{name}: gives {given} classes where {named} are wanted")
        return given or named

    def _agreed(self, what: str, length: Callable[[Session], int | None]) -> int | None:
        """The one value that all networks share, None where all leave it open."""
        values = {length(session): session.name for session in reversed(self._networks)}
        values.pop(None, None)
        if len(values) > 1:
            said = ", ".join(f"{name} {value}" for value, name in values.items())
            raise ModelError(f"the networks of one stage must share their number of {what}: {said}")
        return next(iter(values), None)

    def _pass(
        self,
        image: _Laid,
        total: _Laid,
        views: tuple[View, ...],
        networks: Sequence[Session],
        stop: threading.Event,
    ) -> tuple[_Laid, _Laid, float]:
        """Add some views, all networks in the order given, to the total; once `stop` is set, no more of them.

        Returns
        -------
        image : _Laid
            From which to make the next pass: the last view differs from the next by less than the image as it
            came does.
        total : _Laid
        seconds : float
            Spent inside the networks.
        """
        seconds = 0.0
        rows = self.batch if self._fixed_batch else len(views)
        batch = self._batch(image, views, rows)
        sums = [self._zero] * pieces(self.classes, self._from_logits, self._strips)
        for network in networks:
            if stop.is_set():
                raise InterruptedError
            start = time.perf_counter()
            (output,) = network(batch)
            seconds += time.perf_counter() - start
            if tuple(output.shape()) != (rows, self.classes, PATCH_SIZE, PATCH_SIZE):
                raise ModelError(
                    f"{network.name}: gives {output.shape()} where {rows} × {self.classes} × "
                    f"{PATCH_SIZE} × {PATCH_SIZE} is wanted; it is not a network for this program"
                )
            sums = self._add(output, *sums)
        join = self._helper(
            joining_graph, views, rows, total.view, self.classes, self._from_logits, self._strips
        )
        (value,) = join(total.value, *sums)
        return _Laid(batch, views[-1]) if rows == 1 else image, _Laid(value, views[-1]), seconds

    def _batch(self, image: _Laid, views: tuple[View, ...], rows: int) -> Value:
        """The views of an image, the last one repeated to fill a batch of fixed size."""
        padded = views + views[-1:] * (rows - len(views))
        if padded == (image.view,):
            return image.value
        (batch,) = self._helper(turning_graph, padded, image.view)(image.value)
        return batch

    def _culprit(self, image: Value) -> str:
        """The name of the first network that gives something not finite for a view."""
        for view in self._views:
            batch = self._batch(_Laid(image, AS_IS), (view,), self._fixed_batch or 1)
            for network in self._networks:
                if not np.isfinite(network(batch)[0].numpy()).all():
                    return network.name
        return self._networks[-1].name

    def _helper(self, build: Callable[..., bytes], *arguments: Hashable) -> Session:
        """The session of a small graph, opened when first needed; equal graphs share one."""
        if (build, arguments) not in self._helpers:
            model = build(*arguments)
            if model not in self._helpers:
                self._helpers[model] = self._runtime.helper(model, build.__name__.replace("_", " "))
            self._helpers[build, arguments] = self._helpers[model]
        return self._helpers[build, arguments]


@dataclass(frozen=True)
class _Laid:
    """A square map (1, C, side, side) on the device, and the view in which it lies."""

    value: Value
    view: View


def _check(session: Session, input_side: int) -> None:
    """Refuse what is not one map in, of `input_side` pixels, one map out, of a patch's."""
    if len(session.inputs) != 1 or len(session.outputs) != 1:
        raise ModelError(
            f"{session.name}: has {len(session.inputs)} inputs and {len(session.outputs)} outputs; "
            "one of each is wanted"
        )
    sides = (input_side, PATCH_SIZE)
    for port, side in zip((*session.inputs, *session.outputs), sides, strict=True):
        if port.kind != "tensor(float)" or len(port.shape) != 4:
            raise ModelError(
                f"{session.name}: {port.name} must be 32-bit floats, N × C × {PATCH_SIZE} × {PATCH_SIZE}"
            )
        if any(length not in (None, side) for length in port.shape[2:]):
            raise ModelError(
                f"{session.name}: {port.name} has {port.shape[3]} × {port.shape[2]} pixels; "
                f"export the network for {PATCH_SIZE} × {PATCH_SIZE}"
            )
