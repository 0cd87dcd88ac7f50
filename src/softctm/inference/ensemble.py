"""The mean of a stage's networks over the views of an image, computed on the device."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from softctm.errors import ModelError
from softctm.inference.head_mean import HeadMean, Oriented
from softctm.inference.output_checks import agreed, check_ports, check_values, head_indices
from softctm.inference.parallel import in_threads
from softctm.inference.stage_times import add_seconds
from softctm.inference.tta import IDENTITY, View, views_graph
from softctm.inference.view_batches import ViewBatches
from softctm.model.model import Stage
from softctm.ort.helper_graphs import HelperGraphs
from softctm.ort.passes import input_pooling, pooling_graph, remove_input_pooling
from softctm.ort.runtime import Runtime, Session, Value

_BATCH = {"cpu": 1, "cuda": 8}
"""Views per pass: on a CPU more of them only cost memory, a GPU wants to be filled."""

_STRIPS = {"cpu": 16, "cuda": 1}
"""Strips in which probabilities are added: all that 64 rows take fits into a second-level cache."""


class NotFiniteError(ArithmeticError):
    """A network gave NaN or infinity; the argument is the network's file name."""


class Ensemble:
    """Networks of one stage, loaded; called with an image it gives the mean of what they give.

    Logits become probabilities by a softmax before the mean is taken.

    Parameters
    ----------
    runtime : Runtime
    stage : Stage
        The networks, what they take and what they give.
    views : sequence of View

    Attributes
    ----------
    pooling : int
        Side of the blocks of pixels over which all networks average their input before anything else.
    seconds : dict
        "networks": time inside the networks so far, a call's mean over the threads that share its views.

    Raises
    ------
    ModelError
        If a file is altered or not a usable network, or not what the stage says.
    """

    def __init__(self, runtime: Runtime, stage: Stage, views: Sequence[View]) -> None:
        self._runtime, self._stage, self._views = runtime, stage, tuple(views)
        self._helpers = HelperGraphs(runtime)
        self.pooling, self._networks = open_networks(runtime, stage)
        side = stage.input.size
        check_ports(stage, self._networks, side // self.pooling)
        fixed = agreed(self._networks, "images a batch", lambda session: session.inputs[0].shape[0])
        self._batches = ViewBatches(_BATCH[runtime.device], fixed)
        zero = runtime.value(np.zeros((1, 1, 1, 1), np.float32))
        self._means = [
            HeadMean(self._helpers, head, side // head.stride, _STRIPS[runtime.device], zero)
            for head in stage.heads
        ]
        self._unchecked = {network.name for network in self._networks}
        self.seconds = {"networks": 0.0}

    def __call__(self, image: Value) -> dict[str, Value]:
        """The mean of each head, by its name.

        Parameters
        ----------
        image : (1, channels, size, size) float32, on the device
            Or its averages over blocks of `pooling` × `pooling` pixels.

        Returns
        -------
        dict of str to (1, classes, size, size) float32, on the device
            Vectors are (1, width, size / stride, size / stride).

        Raises
        ------
        NotFiniteError
            If a network gives NaN or infinity.
        ModelError
            If, on the first image, a network gives logits that the manifest calls probabilities, or the
            reverse.
        DeviceError
            If memory runs out even for a single view.
        """
        side = self._stage.input.size
        if self.pooling > 1 and image.shape()[-1] == side:
            (image,) = self._helpers(pooling_graph, self.pooling, side)(image)
        shares = self._shares()
        sums = in_threads(
            list(enumerate(shares)),
            lambda share, stop: _Sum(self, image, stop, share[0] / len(shares)).over(share[1]),
        )
        add_seconds(self.seconds, "networks", sum(part.seconds for part in sums) / len(shares))
        weight = 1 / (len(self._views) * len(self._networks))
        means = {}
        for index, mean in enumerate(self._means):
            means[mean.head.name], is_finite = mean.finish([part.totals[index] for part in sums], weight)
            if not is_finite:
                raise NotFiniteError(self._culprit(image))
        return means

    def _shares(self) -> list[tuple[View, ...]]:
        """The views that each thread takes: neighbors, as evenly as may be."""
        count = min(self._runtime.callers, math.ceil(len(self._views) / (self._batches.fixed or 1)))
        borders = [len(self._views) * share // count for share in range(count + 1)]
        return [self._views[start:stop] for start, stop in pairwise(borders)]

    def _batch(self, image: Oriented, views: tuple[View, ...]) -> Value:
        """The views of an image, the last one repeated to fill a batch of fixed size."""
        padded = views + views[-1:] * (self._batches.rows(views) - len(views))
        if padded == (image.view,):
            return image.value
        (batch,) = self._helpers(views_graph, padded, image.view)(image.value)
        return batch

    def _outputs(self, network: Session, batch: Value) -> list[Value]:
        """What a network gives for each head, its values checked once."""
        outputs = network(batch)
        ordered = [outputs[index] for index in head_indices(self._stage, network)]
        size, rows = self._stage.input.size, batch.shape()[0]
        for head, output in zip(self._stage.heads, ordered, strict=True):
            side = size // head.stride
            wanted = (rows, head.channels, side, side)
            if tuple(output.shape()) != wanted:
                raise ModelError(
                    f"{network.name}: gives {output.shape()} where {' × '.join(map(str, wanted))} is wanted; "
                    "it is not a network for this program"
                )
        if network.name in self._unchecked:
            told = [
                check_values(output.numpy(), head, self._stage.name, network.name)
                for head, output in zip(self._stage.heads, ordered, strict=True)
            ]
            if all(told):
                self._unchecked.discard(network.name)
        return ordered

    def _culprit(self, image: Value) -> str:
        """The name of the first network that gives something not finite for a view."""
        for view in self._views:
            batch = self._batch(Oriented(image, IDENTITY), (view,))
            for network in self._networks:
                if not all(np.isfinite(output.numpy()).all() for output in network(batch)):
                    return network.name
        return self._networks[-1].name


class _Sum:
    """The sum over some views and all networks, as one thread takes it.

    Parameters
    ----------
    ensemble : Ensemble
    image : Value
    stop : Event
        Once it is set, no more is done.
    offset : float
        0 … 1, with which of the networks to begin: threads in one session share its workers, so they begin
        with different ones.
    """

    def __init__(self, ensemble: Ensemble, image: Value, stop: threading.Event, offset: float) -> None:
        self._ensemble, self._stop = ensemble, stop
        networks = ensemble._networks
        turn = int(len(networks) * offset)
        self._order = networks[turn:] + networks[:turn]
        self._latest = Oriented(image, IDENTITY)
        self.totals = [mean.nothing() for mean in ensemble._means]
        self.seconds = 0.0

    def over(self, views: tuple[View, ...]) -> _Sum:
        """Add some views."""
        self._ensemble._batches.run(views, self._add)
        return self

    def _add(self, views: tuple[View, ...]) -> None:
        """Add a pass; nothing changes where it fails."""
        ensemble, seconds = self._ensemble, 0.0
        batch = ensemble._batch(self._latest, views)
        sums = [mean.no_pieces() for mean in ensemble._means]
        for network in self._order:
            if self._stop.is_set():
                raise InterruptedError
            start = time.perf_counter()
            outputs = ensemble._outputs(network, batch)
            seconds += time.perf_counter() - start
            sums = [
                mean.add(output, pieces)
                for mean, output, pieces in zip(ensemble._means, outputs, sums, strict=True)
            ]
        rows = ensemble._batches.rows(views)
        self.totals = [
            mean.join(total, pieces, views, rows)
            for mean, total, pieces in zip(ensemble._means, self.totals, sums, strict=True)
        ]
        if rows == 1:  # the next view differs from this one by less than from the image as it came
            self._latest = Oriented(batch, views[-1])
        self.seconds += seconds


def open_networks(runtime: Runtime, stage: Stage) -> tuple[int, list[Session]]:
    """Parse, rewrite and open a stage's networks, one by one: together they may take much memory.

    Returns
    -------
    pooling : int
        Over how large blocks an image is to be averaged before the networks see it; 1 for not at all.
    sessions : list of Session
    """
    side, shared, opened = stage.input.size, 0, []
    for network in stage.networks:
        model = network.parse()
        pooling = input_pooling(model, side)
        if pooling != (shared or pooling):  # they do not share it: each keeps its own
            return 1, [runtime.network(each.parse(), each.path.name) for each in stage.networks]
        shared = pooling
        remove_input_pooling(model, side)
        opened.append(runtime.network(model, network.path.name))
    return shared, opened
