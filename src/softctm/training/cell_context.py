"""What cell networks see of the tissue: predictions made out of fold, or annotations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from softctm.datasets.ocelot import TISSUE_BACKGROUND, TISSUE_CANCER, AnnotatedPair
from softctm.errors import TrainingError
from softctm.readers.geometry import tissue_window
from softctm.storage.derived import derived_array
from softctm.storage.files import sha256_of
from softctm.training.arrays import key, tissue_context
from softctm.training.fold_training import predict_tissue
from softctm.training.run_folder import NETWORK

if TYPE_CHECKING:
    from softctm.training.cross_validation import EnsembleRun


def cell_context(run: EnsembleRun) -> tuple[NDArray[np.float16], str]:
    """The tissue context of a run's cell patches, and what tells it from another one.

    Predictions are out of fold: each patient's come from the tissue network that never saw that patient, as
    they will at inference. Annotations instead are the paper's upper bound (its tissue-label leaking model):
    unknown tissue is shared evenly between both classes.

    Returns
    -------
    context : (N, 2, S, S) float16
        In the order of the run's pairs, S = 1024 / downsampling.
    made_of : str
        JSON of all that it depends on.

    Raises
    ------
    TrainingError
        If a fold's tissue network is not there yet.
    """
    coupling, factor = run.preset.cells.coupling, run.preset.cells.stored_downsampling
    is_annotated = coupling == "annotated"
    folds = run.fold_of()
    networks = [] if is_annotated else _tissue_files(run, sorted(set(folds)))
    windows = [tissue_window(pair.metadata, pair.id) for pair in run.pairs]
    made_of = {
        "coupling": coupling,
        "downsampling": factor,
        "folds": [] if is_annotated else folds,
        "windows": [asdict(window) for window in windows],
        "tissue": {} if is_annotated else asdict(run.preset.tissue.network),
        "networks": [sha256_of(file) for file in networks],
    }
    files = [pair.tissue_png if is_annotated else pair.tissue_image for pair in run.pairs]
    path = run.cache / f"context-{key(run.pairs, coupling, factor)}.npy"

    def build() -> NDArray[np.float16]:
        maps: dict[int, NDArray[np.float16]] = {}
        for index, tissue in _tissue_maps(run, folds):
            maps[index] = tissue_context(tissue, windows[index].x, windows[index].y, factor)
        return np.stack([maps[index] for index in range(len(run.pairs))])

    return derived_array(path, files, made_of, build), json.dumps(made_of)


def annotated_tissue(pair: AnnotatedPair) -> NDArray[np.float32]:
    """The tissue annotation as probabilities, (2, 1024, 1024)."""
    labels = pair.tissue_labels()
    cancer = np.select([labels == TISSUE_BACKGROUND, labels == TISSUE_CANCER], [0.0, 1.0], 0.5).astype(
        np.float32
    )
    return np.stack([1 - cancer, cancer])


def _tissue_maps(run: EnsembleRun, folds: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Index of a pair, and its tissue as the coupling has it."""
    if run.preset.cells.coupling == "annotated":
        yield from ((index, annotated_tissue(pair)) for index, pair in enumerate(run.pairs))
        return
    for fold in sorted(set(folds)):
        chosen = [index for index, own in enumerate(folds) if own == fold]
        images = (run.pairs[index].tissue_patch() for index in chosen)
        yield from zip(chosen, predict_tissue(run.tissue_network(fold), images), strict=True)


def _tissue_files(run: EnsembleRun, folds: Sequence[int]) -> list[Path]:
    """The weights of every fold's tissue network."""
    paths = [run.folder / "tissue" / f"fold{fold}" / NETWORK for fold in folds]
    missing = [fold for fold, path in zip(folds, paths, strict=True) if not path.exists()]
    if missing:
        raise TrainingError(
            f"tissue networks of fold {', '.join(map(str, missing))} are not there yet: cell networks "
            "see out-of-fold tissue predictions; run `softctm train tissue` for every fold first"
        )
    return paths
