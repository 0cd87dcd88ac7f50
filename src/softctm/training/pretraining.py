"""Pretraining on single images with cell or tissue labels: networks that `softctm train --start` begins with.

    PRE/config.json              what is trained on what; another configuration is refused
    PRE/cache/                   arrays made from the data
    PRE/<task>/                  checkpoint, metrics, weights

None of these images is of a patient in OCELOT, so that one network serves every fold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from softctm.datasets.labeled_images import CellImage, LabeledImage, TissueImage
from softctm.errors import UsageError
from softctm.networks.architecture import SegmentationNetwork
from softctm.progress import SILENT, Progress
from softctm.training.arrays import TrainingArrays
from softctm.training.config import Task, TaskConfig, with_defaults
from softctm.training.fold_training import LEARNED, FoldJob, check_task, crops_of, train_network
from softctm.training.initialization import from_encoder
from softctm.training.labeled_arrays import load_labeled_cells, load_labeled_tissue
from softctm.training.learnable import check_learnable
from softctm.training.loop import LoopConfig
from softctm.training.losses import cell_loss, tissue_cross_entropy
from softctm.training.run_folder import is_begun, keep_config
from softctm.training.segmenters import NucleusSegmenter

_HELD_OUT = -1
"""The fold that is held out: none, every image is in fold 0."""


@dataclass(frozen=True)
class Pretraining:
    """One network, pretrained on images of any number of datasets.

    Attributes
    ----------
    task : "tissue" or "cells"
        All images must have labels for it.
    images : mapping of str to sequence of LabeledImage
        Dataset → its images.
    folder : Path
    config : TaskConfig
        Its coupling must be "none": there is no tissue around these cells.
    loop : LoopConfig
    encoder_weights : str or None
    segmenter : NucleusSegmenter
        Of cells that have no instance masks.
    progress : Progress
    """

    task: Task
    images: Mapping[str, Sequence[LabeledImage]]
    folder: Path
    config: TaskConfig
    loop: LoopConfig
    encoder_weights: str | None
    segmenter: NucleusSegmenter
    progress: Progress = SILENT

    def run(self) -> SegmentationNetwork:
        """Train the network, or go on training it, or load it.

        Raises
        ------
        UsageError
            If a dataset has no labels for the task, the network cannot be trained with them, or encoder
            weights are unknown.
        ModelError
            If encoder weights cannot be read or do not fit.
        TrainingError
            If the folder is of another configuration, or as `train_network` says.
        InputError
            If its configuration cannot be read.
        """
        if self.config.coupling != "none":
            raise UsageError(
                f"{self.task}.coupling={self.config.coupling}: there is no tissue around these images; "
                "leave it at none"
            )
        check_task(self.task, self.config)
        kind = CellImage if self.task == "cells" else TissueImage
        for name, images in self.images.items():
            if not all(isinstance(image, kind) for image in images):
                raise UsageError(
                    f"--data {name}: has no {self.task} labels; leave it out, or pretrain the other task"
                )
        initialize = from_encoder(self.encoder_weights)
        if self.encoder_weights and not is_begun(self.folder):
            initialize(self.config.network, ())  # so that unfit weights are refused before data are prepared
        keep_config(self.folder, self._document(), with_defaults)
        arrays = self._arrays()
        number = len(arrays.images)
        job = FoldJob(
            _HELD_OUT,
            [0] * number,
            initialize,
            self.loop,
            self.folder / self.task,
            [str(index) for index in range(number)],
        )
        loss = cell_loss(self.config.target) if self.task == "cells" else tissue_cross_entropy
        crops = crops_of(self.config, arrays, self.loop.seed)
        return train_network(
            self.task, self.config, loss, arrays, job, _nothing_to_count, crops, partial(self._check, arrays)
        )

    def _check(self, arrays: TrainingArrays) -> None:
        """Say, and make sure, that there is something to learn: cells of unknown class are cells too."""
        classes, unit = LEARNED[self.task]
        what = f"{self.task} network of pretraining"
        if self.task == "tissue":
            check_learnable(what, arrays.counts, classes, unit, samples="patches")
            return
        images = [cast(CellImage, image) for part in self.images.values() for image in part]
        counts = np.array([np.bincount(image.load().label, minlength=3)[[1, 2, 0]] for image in images])
        check_learnable(what, counts, classes, unit, samples="images", unknown="cell of unknown class")

    def _document(self) -> dict[str, Any]:
        return {
            "pretraining": self.task,
            "data": {name: len(images) for name, images in self.images.items()},
            self.task: asdict(self.config),
            "seed": self.loop.seed,
            "encoder_weights": Path(self.encoder_weights).name if self.encoder_weights else None,
        }

    def _arrays(self) -> TrainingArrays:
        images = [image for name in sorted(self.images) for image in self.images[name]]
        factor, cache, seed = self.config.stored_downsampling, self.folder / "cache", self.loop.seed
        if self.task == "tissue":
            return load_labeled_tissue(cast(list[TissueImage], images), factor, cache, seed, self.progress)
        cells = cast(list[CellImage], images)
        return load_labeled_cells(
            cells, factor, self.config.target, self.segmenter, cache, seed, self.progress
        )


def _nothing_to_count(_logits: Tensor, _index: int) -> NDArray[np.int64]:
    """What is scored of a held-out patch; there is none."""
    return np.zeros((2, 3), np.int64)
