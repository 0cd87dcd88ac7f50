"""Models of one stage that looks at one image: the maps of their heads, and what is found in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.choices import DeviceChoice
from softctm.errors import UsageError
from softctm.inference.ensemble import Ensemble
from softctm.inference.faults import faults_named
from softctm.inference.tissue_context import image_graph
from softctm.inference.tta import first_views
from softctm.model.model import Model
from softctm.model.tasks import TASKS
from softctm.ort.runtime import Runtime, Value
from softctm.postprocessing.methods import open_decoder


class ImageDetector:
    """Runs a model whose manifest has one stage, with any number of heads.

    Parameters
    ----------
    model : Model
    device : "auto", "cpu" or "cuda"
    views : 1, 2, 4 or 8
        No more than the model's task allows: heads whose numbers change with the orientation of an image,
        such as distances along x, allow 1 only.
    callers : int
        From how many threads at once it will be called.

    Attributes
    ----------
    callers : int
        From how many threads at once it may be called.
    device : "cpu" or "cuda"
        What the networks really run on.
    notice : str or None
        What a user should know about device and precision.
    views : int
    size : int
        Pixels a side of what the networks see.

    Raises
    ------
    UsageError
        If there are more views than the task allows.
    ModelError, DeviceError
    """

    def __init__(
        self, model: Model, *, device: DeviceChoice = "auto", views: int = 1, callers: int = 1
    ) -> None:
        self.model, self.views = model, views
        most = TASKS[model.manifest.task].max_views
        if views > most:
            raise UsageError(
                f"--views {views}: models of the task {model.manifest.task} take no more than {most}, for "
                "their maps change with the orientation of the image"
            )
        (stage,) = model.stages.values()
        runtime = Runtime(device, len(model.networks), model.precision, callers if views == 1 else 1)
        self.callers = runtime.callers
        self.device, self.notice, self.size = runtime.device, runtime.notice, stage.input.size
        self._runtime = runtime
        self._ensemble = Ensemble(runtime, stage, first_views(views))
        self._image = runtime.helper(image_graph(self.size, self._ensemble.pooling), "image")
        self._decode = open_decoder(model.postprocessing, runtime)

    def __call__(self, image: NDArray[np.uint8]) -> Any:
        """What the model's post-processing finds in an image.

        Parameters
        ----------
        image : (H, W, 3) uint8
            At most `size` a side. Where it is smaller, it is mirrored at its right and lower border for the
            networks, and the maps are cut to the image before anything is looked for in them.

        Raises
        ------
        PairError
            If a network gives NaN or infinity for this image.
        ModelError
            If a network's values are not what the model calls them; found on the first image.
        DeviceError
            If memory runs out.
        """
        return self._decode(self._maps(image))

    def maps(self, image: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """What the heads give, by name; parameters and errors as `__call__`.

        Returns
        -------
        dict of str to float32 array
            Maps are (classes, H, W); vectors (width, ⌈H / stride⌉, ⌈W / stride⌉).
        """
        return {name: value.numpy()[0] for name, value in self._maps(image).items()}

    @property
    def seconds_in_networks(self) -> float:
        """Time spent so far inside the networks themselves, of all callers together."""
        return self._ensemble.seconds["networks"]

    def _maps(self, image: NDArray[np.uint8]) -> Mapping[str, Value]:
        height, width = image.shape[:2]
        missing = ((0, self.size - height), (0, self.size - width), (0, 0))
        (planes,) = self._image(self._runtime.value(np.pad(image, missing, mode="symmetric")))
        with faults_named(self.model, "image"):
            maps = self._ensemble(planes)
        if height == width == self.size:
            return maps
        (stage,) = self.model.stages.values()
        cut = {}
        for head in stage.heads:
            rows, columns = -(-height // head.stride), -(-width // head.stride)
            cut[head.name] = self._runtime.value(maps[head.name].numpy()[..., :rows, :columns])
        return cut
