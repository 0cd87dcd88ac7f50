"""A run over images with instance masks: folds by image, one point-guided network a fold, one of all.

RUN/config.json                 what is trained on what; another configuration is refused
RUN/folds.json                  which image is in which fold
RUN/fold<k>/segmenter.onnx      finds nuclei at points; never saw the images of fold k
RUN/all/segmenter.onnx          likewise, of all images
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from softctm.datasets.image_registry import IMAGE_DATASETS
from softctm.datasets.labeled_images import LabeledImage
from softctm.networks.network_table import build_network
from softctm.networks.point_guided import export_point_guided
from softctm.pair import CELL_MPP
from softctm.storage.files import write_json_atomically
from softctm.training.config import config_from_json, part_with_defaults
from softctm.training.loop import LoopConfig
from softctm.training.nuclei.data import TrainingImage
from softctm.training.nuclei.folds import (
    ALL,
    default_folds,
    nuclei_folds,
    read_image_folds,
    split_by_fold,
)
from softctm.training.point_guided.data import load_masked_images
from softctm.training.point_guided.task import PointGuidedConfig, train_point_guided
from softctm.training.processes import is_first_process
from softctm.training.run_folder import (
    FOLDS,
    check_fold,
    check_fold_count,
    is_begun,
    keep_config,
    read_run_file,
)

SEGMENTER = "segmenter.onnx"


@dataclass(frozen=True)
class PointGuidedRun:
    """Everything that belongs to one run's folder.

    Attributes
    ----------
    folder : Path
    data : mapping of str to sequence of LabeledImage
        Dataset → its images.
    config : PointGuidedConfig
    loop : LoopConfig
    encoder_weights : str or None
    """

    folder: Path
    data: Mapping[str, Sequence[LabeledImage]]
    config: PointGuidedConfig
    loop: LoopConfig
    encoder_weights: str | None = None

    @cached_property
    def images(self) -> list[TrainingImage]:
        """Of all datasets at 0.2 mpp, in memory; errors as `load_masked_images`."""
        return load_masked_images(self.data)

    def prepare(self, folds: int | None, seed: int, fold: int | None = None) -> None:
        """Write the run's configuration and folds, or check that they are those of this run.

        `fold` is the only one that will be trained, if it is.

        Raises
        ------
        UsageError
            If values of the configuration do not fit each other, there are fewer images than folds or no
            `fold`, a dataset has no masks, or encoder weights are unknown.
        ModelError
            If encoder weights cannot be read or do not fit.
        TrainingError
            If the folder is of another configuration.
        InputError
            If its folds cannot be read, or lack an image.
        OutputError
            If the folder cannot be written to.
        """
        self.config.check()
        if self.encoder_weights and not is_begun(self.folder):
            build_network(self.config.network, self.encoder_weights)
        document = {
            "task": "points",
            "data": {name: len(images) for name, images in self.data.items()},
            "config": asdict(self.config),
            "seed": self.loop.seed,
            "precision": "bfloat16" if self.loop.bfloat16 else "float32",
            "encoder_weights": Path(self.encoder_weights).name if self.encoder_weights else None,
        }
        read, path = partial(config_from_json, PointGuidedConfig), self.folder / FOLDS
        new: dict[str, Any] = {}
        if not path.exists():  # before the folder is claimed
            folds = default_folds(self.images) if folds is None else folds
            new = {"folds": folds, "seed": seed, "images": nuclei_folds(self.images, 1, folds, seed)}
            check_fold(fold, new["images"].values())
        keep_config(self.folder, document, partial(part_with_defaults, read=read))
        if new:
            write_json_atomically(path, new, indent=1)
        check_fold_count(path, read_run_file(path).get("folds", folds), folds)
        self.fold_of()

    def fold_of(self) -> list[int]:
        """The fold of every image, in the order of `images`; InputError if the file lacks one."""
        return read_image_folds(self.folder / FOLDS, self.images)

    def train(self, fold: int | None) -> Path:
        """Train the network that holds out a fold, or nothing; returns its ONNX file.

        Raises
        ------
        UsageError
            If there is no such fold.
        TrainingError, InputError
            As `train_point_guided`.
        """
        learned, held_out = split_by_fold(self.images, self.fold_of(), fold)
        path = self.segmenter(fold)
        network = train_point_guided(
            self.config, learned, held_out, self.loop, path.parent, self.encoder_weights
        )
        if is_first_process() and not path.exists():
            export_point_guided(network, self.config.augmentation.crop, path, self._facts())
        return path

    def segmenter(self, fold: int | None) -> Path:
        """Where the ONNX file of a network lies once it is trained."""
        return self.folder / (ALL if fold is None else f"fold{fold}") / SEGMENTER

    def _facts(self) -> dict[str, str]:
        known = [IMAGE_DATASETS[name] for name in self.data]
        return {
            "mpp": str(CELL_MPP),
            "trained_on": ", ".join(f"{name} ({len(images)} images)" for name, images in self.data.items()),
            "licenses": "; ".join(dataset.license for dataset in known),
            "attributions": "; ".join(dataset.attribution for dataset in known),
        }
