"""The whole ensemble in one run folder: folds, tissue networks, their predictions, cell networks.

Every stage leaves a file behind and is skipped where that file lies, so that the same command goes on
where a killed one stopped.

    RUN/config.json            what is trained; another configuration is refused
    RUN/commit                 of the source that the run was begun with
    RUN/folds.json             who is in which fold
    RUN/cache/                 arrays made from the data
    RUN/tissue/fold<k>/        checkpoint, metrics, network of the tissue network that never saw fold k
    RUN/cells/fold<k>/         likewise for cells
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from softctm.datasets.folds import folds_of, make_folds, read_folds, write_folds
from softctm.datasets.ocelot import TISSUE_BACKGROUND, TISSUE_CANCER, AnnotatedPair
from softctm.errors import TrainingError
from softctm.files import write_json_atomically
from softctm.geometry import tissue_window
from softctm.networks import DeepLab, NetworkSpec, load_network
from softctm.training.arrays import (
    TrainingArrays,
    cached,
    key,
    load_cells,
    load_tissue,
    read_rgb,
    tissue_context,
)
from softctm.training.config import Preset, Task, with_defaults
from softctm.training.initialization import Start, from_encoder
from softctm.training.loop import LoopConfig
from softctm.training.segmenters import ClassicalSegmenter, NucleusSegmenter
from softctm.training.specs import network_spec
from softctm.training.tasks import FoldJob, predict_tissue, train_cells, train_tissue


@dataclass(frozen=True)
class EnsembleRun:
    """One run: the data, where its files go and what is trained.

    Attributes
    ----------
    pairs : sequence of AnnotatedPair
    folder : Path
        The run's folder.
    preset : Preset
    loop : LoopConfig
    encoder_weights : str or None
        What encoders begin with; see `DeepLab`.
    segmenter : NucleusSegmenter
        For the cell targets.
    start : Start or None
        What these networks begin with, fold by fold; tasks whose networks it does not fit begin with
        `encoder_weights`.
    """

    pairs: Sequence[AnnotatedPair]
    folder: Path
    preset: Preset
    loop: LoopConfig
    encoder_weights: str | None
    segmenter: NucleusSegmenter = field(default_factory=ClassicalSegmenter)
    start: Start | None = None

    def prepare(self, folds: int, seed: int, folds_file: Path | None = None) -> None:
        """Write configuration and folds (made, or those of `folds_file`), or check that they are this run's.

        A run that starts from trained networks leaves their patients in their folds: networks would otherwise
        begin with what they learned from the patients they are scored on. Patients who are new to them are
        dealt out.

        Raises
        ------
        TrainingError
            If the folder belongs to another configuration, or its folds are not those that `start` had, or
            encoder weights are wanted beside it or have no use.
        """
        self._check_beginnings()
        settings = {**asdict(self.preset), "seed": self.loop.seed, "encoder_weights": self._encoder_name()}
        if not isinstance(self.segmenter, ClassicalSegmenter):
            settings["segmenter"] = repr(self.segmenter)
        if not self.loop.bfloat16:
            settings["precision"] = "float32"
        if self.start:
            settings["start"] = self.start.config
            settings["encoder_weights"] = self._encoder_name() or self.start.config.get("encoder_weights")
        document = json.loads(json.dumps(settings))
        path = self.folder / "config.json"
        is_new = not self.folds_path.exists()
        made = self._folds(folds, seed, folds_file) if is_new or self.start else {}
        if path.exists() and with_defaults(json.loads(path.read_text())) != document:
            raise TrainingError(
                f"{path}: this folder is of another configuration; choose another --run folder"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            # At once or not at all: other folds may be starting in other processes.
            write_json_atomically(path, document, indent=1)
        if not self._commit_path.exists():
            self._commit_path.write_text(source_commit() + "\n")
        if is_new:
            before = self.start.folds if self.start else None
            source = before or (read_folds(folds_file) if folds_file else None)
            write_folds(self.folds_path, made, self.pairs, source.seed if source else seed, before)
        elif self.start and read_folds(self.folds_path).of_pair != made:
            raise TrainingError(
                f"{self.folds_path}: not the pairs, or not the folds, that {self.start.folder} and the data "
                "give; choose another --run folder"
            )

    def _folds(self, count: int, seed: int, given: Path | None) -> dict[str, int]:
        """Pair ID → fold, as a new run has them."""
        if self.start:
            return make_folds(self.pairs, self.start.folds.count, seed, self.start.folds.of_patient)
        if given:
            return {pair.id: fold for pair, fold in zip(self.pairs, folds_of(self.pairs, given), strict=True)}
        return make_folds(self.pairs, count, seed)

    def _check_beginnings(self) -> None:
        """Refuse encoder weights without use, and a start that needs some and has none."""
        if not self.start:
            return
        strange = [task for task in get_args(Task) if not self.start.fits(task, self._spec(task))]
        if strange and not self.encoder_weights:
            raise TrainingError(
                f"{self.start.folder}: its {' and '.join(strange)} networks are of another shape (encoder, "
                "depth, decoder, coupling) than this run's; name what these begin with by --encoder-weights"
            )
        if self.encoder_weights and not strange:
            raise TrainingError(
                f"--encoder-weights: has no effect beside --start {self.start.folder}, whose networks bring "
                "their own; leave it out"
            )

    def _spec(self, task: Task) -> NetworkSpec:
        return network_spec(task, self.preset.of(task))

    def commit(self) -> str:
        """The commit of the source that the run was begun with, or "unknown"."""
        return self._commit_path.read_text().strip() if self._commit_path.exists() else "unknown"

    @property
    def _commit_path(self) -> Path:
        return self.folder / "commit"

    def _encoder_name(self) -> str | None:
        return Path(self.encoder_weights).name if self.encoder_weights else None

    @property
    def folds_path(self) -> Path:
        """The file that says who is in which fold."""
        return self.folder / "folds.json"

    @property
    def cache(self) -> Path:
        """Where arrays made from the data lie."""
        return self.folder / "cache"

    def fold_of(self) -> list[int]:
        """The fold of every pair, in the order of `pairs`."""
        return folds_of(self.pairs, self.folds_path)

    def train_tissue(self, fold: int) -> DeepLab:
        """Train the tissue network that never sees `fold`, or load it."""
        config = self.preset.tissue
        arrays = load_tissue(self.pairs, config.stored_downsampling, self.cache)
        return train_tissue(config, arrays, self._job("tissue", fold))

    def train_cells(self, fold: int) -> DeepLab:
        """Train the cell network that never sees `fold`, or load it; its tissue networks must be there."""
        points = [pair.cells() for pair in self.pairs]
        return train_cells(self.preset.cells, self.cell_arrays(), points, self._job("cells", fold))

    def _job(self, task: Task, fold: int) -> FoldJob:
        place = Path(task) / f"fold{fold}"
        begin = from_encoder(self.encoder_weights)
        if self.start and self.start.fits(task, self._spec(task)):
            begin = self.start.network(task, fold)
        return FoldJob(fold, self.fold_of(), begin, self.loop, self.folder / place)

    def tissue_network(self, fold: int) -> DeepLab:
        """The trained tissue network that never saw `fold`.

        Raises
        ------
        TrainingError
            If it has not been trained yet.
        """
        return self._load("tissue", fold)

    def cell_network(self, fold: int) -> DeepLab:
        """The trained cell network that never saw `fold`; errors as `tissue_network`."""
        return self._load("cells", fold)

    def _load(self, task: Task, fold: int) -> DeepLab:
        path = self.folder / task / f"fold{fold}" / "network.safetensors"
        if not path.exists():
            raise TrainingError(f"{path}: is not there yet; run `softctm train {task} --fold {fold}` first")
        return load_network(self._spec(task), path)

    def cell_arrays(self) -> TrainingArrays:
        """Patches, targets and tissue context of all pairs."""
        config = self.preset.cells
        context = None if config.coupling == "none" else self._context()
        return load_cells(
            self.pairs, config.stored_downsampling, config.target, self.segmenter, context, self.cache
        )

    def _context(self) -> NDArray[np.float16]:
        """What the cell networks see of the tissue.

        Predictions are out of fold: each patient's come from the tissue network that never saw that
        patient, as they will at inference. Annotations instead are the paper's upper bound (its tissue-label
        leaking model): unknown tissue is shared evenly between both classes.
        """
        factor = self.preset.cells.stored_downsampling
        folds = self.fold_of()
        networks = (
            "" if self.preset.cells.coupling == "annotated" else self._tissue_identity(sorted(set(folds)))
        )
        name = f"context-{key(self.pairs, self.preset.cells.coupling, factor, networks, folds)}.npy"

        def build() -> NDArray[np.float16]:
            windows = [tissue_window(pair.metadata, pair.id) for pair in self.pairs]
            maps: dict[int, NDArray[np.float16]] = {}
            if self.preset.cells.coupling == "annotated":
                for index, pair in enumerate(self.pairs):
                    maps[index] = tissue_context(
                        annotated_tissue(pair), windows[index].x, windows[index].y, factor
                    )
            else:
                for fold in sorted(set(folds)):
                    chosen = [index for index, own in enumerate(folds) if own == fold]
                    images = (read_rgb(self.pairs[index].tissue_image) for index in chosen)
                    predicted = predict_tissue(self.tissue_network(fold), images)
                    for index, tissue in zip(chosen, predicted, strict=True):
                        maps[index] = tissue_context(tissue, windows[index].x, windows[index].y, factor)
            return np.stack([maps[index] for index in range(len(self.pairs))])

        return cached(self.cache / name, build)

    def _tissue_identity(self, folds: Sequence[int]) -> str:
        """Changes whenever a tissue network does."""
        paths = [self.folder / "tissue" / f"fold{fold}" / "network.safetensors" for fold in folds]
        missing = [fold for fold, path in zip(folds, paths, strict=True) if not path.exists()]
        if missing:
            raise TrainingError(
                f"tissue networks of fold {', '.join(map(str, missing))} are not there yet: cell networks "
                "see out-of-fold tissue predictions; run `softctm train tissue` for every fold first"
            )
        return " ".join(str(path.stat().st_mtime_ns) for path in paths)


def annotated_tissue(pair: AnnotatedPair) -> NDArray[np.float32]:
    """The tissue annotation as probabilities, (2, 1024, 1024)."""
    labels = pair.tissue_labels()
    cancer = np.select([labels == TISSUE_BACKGROUND, labels == TISSUE_CANCER], [0.0, 1.0], 0.5).astype(
        np.float32
    )
    return np.stack([1 - cancer, cancer])


def source_commit() -> str:
    """The commit of the source that is running, or "unknown" outside a checkout."""
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return result.stdout.strip()
