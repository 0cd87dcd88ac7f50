"""A run over data sets of nuclei: folds, one network a fold, and one that learns from all images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from softctm.datasets.nuclei.base import NucleiDataset
from softctm.errors import TrainingError, UsageError
from softctm.storage.files import write_json_atomically
from softctm.training.config import part_with_defaults
from softctm.training.loop import LoopConfig
from softctm.training.nuclei.config import NucleiConfig, nuclei_config_from_json
from softctm.training.nuclei.data import TrainingImage, load_training_images
from softctm.training.nuclei.folds import (
    ALL,
    default_folds,
    nuclei_folds,
    read_image_folds,
    split_by_fold,
)
from softctm.training.nuclei.starts import KNOWN_BEFORE, KNOWN_IMAGES, NucleiStart
from softctm.training.nuclei.task import (
    build_nuclei_network,
    load_nuclei_network,
    train_nuclei_network,
)
from softctm.training.run_folder import (
    CONFIG,
    FOLDS,
    NETWORK,
    check_fold,
    check_fold_count,
    is_begun,
    keep_config,
    read_run_file,
    source_commit,
)


@dataclass(frozen=True)
class NucleiRun:
    """Everything that belongs to one run's folder.

    Attributes
    ----------
    folder : Path
        `config.json`, `folds.json`, and one folder per network: `fold0`, …, `all`.
    datasets : sequence of (name, NucleiDataset)
    preset : str
    config : NucleiConfig
    loop : LoopConfig
    encoder_weights : str or None
    start : NucleiStart or None
        Networks to begin with, instead of random ones.
    """

    folder: Path
    datasets: Sequence[tuple[str, NucleiDataset]]
    preset: str
    config: NucleiConfig
    loop: LoopConfig
    encoder_weights: str | None = None
    start: NucleiStart | None = None

    @cached_property
    def _loaded(self) -> tuple[list[TrainingImage], tuple[str, ...], tuple[str, ...]]:
        return load_training_images(self.datasets)

    @property
    def images(self) -> list[TrainingImage]:
        """Of all data sets, in memory."""
        return self._loaded[0]

    @property
    def types(self) -> tuple[str, ...]:
        """Names, background first."""
        return self._loaded[1]

    @property
    def tissues(self) -> tuple[str, ...]:
        """Organs that the data sets name."""
        return self._loaded[2]

    def prepare(self, count: int | None, seed: int, fold: int | None = None) -> None:
        """Write the run's configuration and folds, or check that they are those of this run.

        `fold` is the only one that will be trained, if it is.

        Raises
        ------
        UsageError
            If values of the configuration do not fit each other, there are fewer patients than folds or
            no `fold`, not as many folds as the networks to start from have, or encoder weights are unknown.
        ModelError
            If encoder weights cannot be read or do not fit.
        TrainingError
            If the folder holds a run of another configuration, or what it starts from does not fit.
        InputError
            If its folds cannot be read, or lack an image.
        OutputError
            If the folder cannot be written to.
        """
        self.config.check()
        before = self.start.count if self.start else None
        if self.start:
            self.start.check(self.config)
        if self.encoder_weights and not is_begun(self.folder):
            build_nuclei_network(self.config, 2, 1, self.encoder_weights)
        if before and count not in (None, before):
            raise UsageError(
                f"--folds {count}: the networks to start from have {before} folds; leave the option out"
            )
        new = {} if self.folds_path.exists() else self._new_folds(before if count is None else count, seed)
        if new:  # before the folder is claimed
            check_fold(fold, new["images"].values())
        keep_config(self.folder, self._config(), partial(part_with_defaults, read=nuclei_config_from_json))
        if new:
            write_json_atomically(self.folds_path, new, indent=1)
        check_fold_count(self.folds_path, read_run_file(self.folds_path).get("folds", count), count)
        self.fold_of()

    def _new_folds(self, count: int | None, seed: int) -> dict[str, Any]:
        """What folds.json of a new run holds."""
        known = self.start.folds if self.start else {}
        count = default_folds(self.images) if count is None else count
        folds = nuclei_folds(self.images, len(self.types), count, seed, known)
        others = {name: fold for name, fold in known.items() if name not in folds}
        split = {"folds": count, "split_by": "image; patient where known", "seed": seed, "images": folds}
        return {**split, KNOWN_BEFORE: others}

    def check_held_out(self) -> None:
        """Refuse a start that learned from images which the folds of this run hold out.

        Raises
        ------
        TrainingError
            If it did.
        """
        if self.start:
            self.start.check_unknown([image.name for image in self.images])

    def known_images(self) -> list[str] | None:
        """All images that its networks learned from, or what they started from did; None where unknown."""
        before = read_run_file(self.folds_path).get(KNOWN_BEFORE, {})
        of_all: list[str] | None = read_run_file(self.folder / CONFIG).get(KNOWN_IMAGES, [])
        return None if of_all is None else sorted({*before, *of_all, *(image.name for image in self.images)})

    @property
    def folds_path(self) -> Path:
        """The file that says which image is in which fold."""
        return self.folder / FOLDS

    def fold_of(self) -> list[int]:
        """The fold of every image, in the order of `images`."""
        return read_image_folds(self.folds_path, self.images)

    def train(self, fold: int | None) -> nn.Module:
        """Train the network that holds out a fold, or nothing, or load it; errors as training's."""
        learned, held_out = split_by_fold(self.images, self.fold_of(), fold)
        if fold is not None:
            self.check_held_out()

        def initialize(batches: Iterable[Tensor]) -> nn.Module:
            if self.start:
                return self.start.network(self.config, fold, self.types, len(self.tissues), batches)
            counts = len(self.types), len(self.tissues)
            return build_nuclei_network(self.config, *counts, self.encoder_weights)

        return train_nuclei_network(
            self.config, learned, held_out, len(self.types), len(self.tissues),
            self.loop, self.place(fold), initialize,
        )  # fmt: skip

    def network(self, fold: int | None) -> nn.Module:
        """The trained network; TrainingError if it is not there yet."""
        path = self.place(fold) / NETWORK
        if not path.exists():
            which = "--all-images" if fold is None else f"--fold {fold}"
            raise TrainingError(f"{path}: is not there yet; run `softctm train nuclei {which}` first")
        return load_nuclei_network(self.config, len(self.types), len(self.tissues), path)

    def place(self, fold: int | None) -> Path:
        """The folder of a network."""
        return self.folder / (ALL if fold is None else f"fold{fold}")

    def _config(self) -> dict[str, Any]:
        return {
            "preset": self.preset,
            "config": asdict(self.config),
            "types": self.types,
            "tissues": self.tissues,
            "images": len(self.images),
            "nuclei": sum(int((np.unique(image.instances) > 0).sum()) for image in self.images),
            "seed": self.loop.seed,
            "precision": "bfloat16" if self.loop.bfloat16 else "float32",
            "encoder_weights": Path(self.encoder_weights).name if self.encoder_weights else None,
            **({"start": self.start.facts, KNOWN_IMAGES: self.start.known} if self.start else {}),
            "commit": source_commit(),
        }
