"""The mean probability map of a stage's networks over the views of an image, computed on the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from softctm.errors import ModelError
from softctm.graphs import Graph
from softctm.model import Stage
from softctm.pair import PATCH_SIZE
from softctm.runtime import OutOfDeviceMemoryError, Runtime, Session, Value
from softctm.views import View, returning_graph, turning_graph

_BATCH = {"cpu": 1, "cuda": 8}
"""Views a pass: on a processor more of them only cost memory, a graphics card wants to be filled."""


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
        Time spent inside the networks so far.

    Raises
    ------
    ModelError
        If a file is altered or not a usable network, or the networks contradict each other.
    """

    def __init__(self, runtime: Runtime, stage: Stage, views: Sequence[View]) -> None:
        self._runtime = runtime
        self._views = tuple(views)
        self._networks = [runtime.network(network.read(), network.path.name) for network in stage.networks]
        for session in self._networks:
            _check(session)
        self.channels = self._agreed("input channels", lambda session: session.inputs[0].shape[1])
        self.classes = self._class_count(len(stage.classes))
        self._fixed_batch = self._agreed("images a batch", lambda session: session.inputs[0].shape[0])
        self.batch = self._fixed_batch or _BATCH[runtime.device]
        self._add = runtime.helper(_adding_graph(stage.output == "logits"), "sum of probabilities")
        self._turns: dict[tuple[tuple[View, ...], int], tuple[Session, Session]] = {}
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
        mean, done = self._zero, 0
        while done < len(self._views):
            views = self._views[done : done + self.batch]
            try:
                mean = self._pass(image, views, mean)
            except OutOfDeviceMemoryError:
                if self._fixed_batch or self.batch == 1:
                    raise
                self.batch //= 2
                continue
            done += len(views)
        return mean

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

    def _pass(self, image: Value, views: tuple[View, ...], mean: Value) -> Value:
        """Add the share of some views, all networks, to the mean."""
        rows = self.batch if self._fixed_batch else len(views)
        turn, turn_back = self._turning(views, rows)
        (batch,) = turn(image)
        total = self._zero
        for network in self._networks:
            start = time.perf_counter()
            (output,) = network(batch)
            self.seconds_in_networks += time.perf_counter() - start
            if tuple(output.shape()) != (rows, self.classes, PATCH_SIZE, PATCH_SIZE):
                raise ModelError(
                    f"{network.name}: gives {output.shape()} where {rows} × {self.classes} × "
                    f"{PATCH_SIZE} × {PATCH_SIZE} is wanted; it is not a network for this program"
                )
            total, check = self._add(total, output, to_host=[1])
            if not np.isfinite(check.numpy()).all():
                raise NotFiniteError(network.name)
        (mean,) = turn_back(mean, total)
        return mean

    def _turning(self, views: tuple[View, ...], rows: int) -> tuple[Session, Session]:
        """Sessions that turn an image into a batch of views, and back; made when first needed."""
        if (views, rows) not in self._turns:
            padded = views + views[-1:] * (rows - len(views))
            weight = 1 / (len(self._views) * len(self._networks))
            self._turns[views, rows] = (
                self._runtime.helper(turning_graph(padded), "views"),
                self._runtime.helper(returning_graph(views, rows, weight), "views turned back"),
            )
        return self._turns[views, rows]


def _adding_graph(from_logits: bool) -> bytes:
    """Graph: `total` + the probabilities in `output` (N, K, S, S); and its sum, which shows NaN."""
    graph = Graph()
    total = graph.input("total", np.float32, ("n", "k", "h", "w"))
    output = graph.input("output", np.float32, ("N", "K", "H", "W"))
    if from_logits:
        # ONNX Runtime's own Softmax over channels is fifteen times slower: it moves them last and back.
        centred = graph.node("Sub", output, graph.node("ReduceMax", output, axes=[1]))
        powers = graph.node("Exp", centred)
        output = graph.node("Div", powers, graph.node("ReduceSum", powers, graph.axes(1)))
    added = graph.node("Add", output, total)
    return graph.model(added, graph.node("ReduceSum", added, keepdims=0))


def _check(session: Session) -> None:
    """Refuse what is not one map in, one map out, of the right size."""
    if len(session.inputs) != 1 or len(session.outputs) != 1:
        raise ModelError(
            f"{session.name}: has {len(session.inputs)} inputs and {len(session.outputs)} outputs; "
            "one of each is wanted"
        )
    for port in (*session.inputs, *session.outputs):
        if port.kind != "tensor(float)" or len(port.shape) != 4:
            raise ModelError(
                f"{session.name}: {port.name} must be 32-bit floats, N × C × {PATCH_SIZE} × {PATCH_SIZE}"
            )
        if any(length not in (None, PATCH_SIZE) for length in port.shape[2:]):
            raise ModelError(
                f"{session.name}: {port.name} has {port.shape[3]} × {port.shape[2]} pixels; "
                f"export the network for {PATCH_SIZE} × {PATCH_SIZE}"
            )
