"""What cell networks see of the tissue: predictions made out of fold, or annotations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softctm.datasets.ocelot import TISSUE_BACKGROUND, TISSUE_CANCER, AnnotatedPair
from softctm.errors import TrainingError
from softctm.networks.network_config import NetworkConfig
from softctm.networks.weights import load_network
from softctm.readers.geometry import tissue_window
from softctm.storage.derived import derived_array
from softctm.storage.files import sha256_of
from softctm.training.arrays import key, tissue_context
from softctm.training.config import Preset
from softctm.training.fold_training import predict_tissue
from softctm.training.run_folder import NETWORK


def cell_context(
    pairs: Sequence[AnnotatedPair],
    fold_of: Sequence[int],
    preset: Preset,
    tissue_folder: Path,
    cache: Path,
) -> tuple[NDArray[np.float16], str]:
    """The tissue context of cell patches, and what tells it from another one.

    Predictions are out of fold: each patient's come from the tissue network that never saw that patient, as
    they will at inference. Annotations instead are the paper's upper bound (its tissue-label leaking model):
    unknown tissue is shared evenly between both classes.

    Parameters
    ----------
    pairs : sequence of AnnotatedPair
    fold_of : sequence of int
        The fold of each.
    preset : Preset
        Its cells' coupling is "predicted" or "annotated".
    tissue_folder : Path
        Holds a folder for every fold's tissue network.
    cache : Path
        Keeps what was made.

    Returns
    -------
    context : (N, 2, S, S) float16
        In the order of the pairs, S = 1024 / downsampling.
    made_of : str
        JSON of all that it depends on.

    Raises
    ------
    TrainingError
        If a fold's tissue network is not there yet.
    """
    coupling, factor = preset.cells.coupling, preset.cells.stored_downsampling
    is_annotated = coupling == "annotated"
    networks = {} if is_annotated else _tissue_files(tissue_folder, sorted(set(fold_of)))
    windows = [tissue_window(pair.metadata, pair.id) for pair in pairs]
    made_of = {
        "coupling": coupling,
        "downsampling": factor,
        "folds": [] if is_annotated else list(fold_of),
        "windows": [asdict(window) for window in windows],
        "tissue": {} if is_annotated else asdict(preset.tissue.network),
        "networks": [sha256_of(file) for file in networks.values()],
    }
    files = [pair.tissue_png if is_annotated else pair.tissue_image for pair in pairs]
    path = cache / f"context-{key(pairs, coupling, factor)}.npy"

    def build() -> NDArray[np.float16]:
        maps: dict[int, NDArray[np.float16]] = {}
        for index, tissue in _tissue_maps(pairs, fold_of, preset.tissue.network, networks):
            maps[index] = tissue_context(tissue, windows[index].x, windows[index].y, factor)
        return np.stack([maps[index] for index in range(len(pairs))])

    return derived_array(path, files, made_of, build), json.dumps(made_of)


def annotated_tissue(pair: AnnotatedPair) -> NDArray[np.float32]:
    """The tissue annotation as probabilities, (2, 1024, 1024)."""
    labels = pair.tissue_labels()
    cancer = np.select([labels == TISSUE_BACKGROUND, labels == TISSUE_CANCER], [0.0, 1.0], 0.5).astype(
        np.float32
    )
    return np.stack([1 - cancer, cancer])


def _tissue_maps(
    pairs: Sequence[AnnotatedPair],
    fold_of: Sequence[int],
    config: NetworkConfig,
    networks: Mapping[int, Path],
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Index of a pair, and its tissue: by its fold's network, or without networks as annotated."""
    if not networks:
        yield from ((index, annotated_tissue(pair)) for index, pair in enumerate(pairs))
    for fold, path in networks.items():
        chosen = [index for index, own in enumerate(fold_of) if own == fold]
        images = (pairs[index].tissue_patch() for index in chosen)
        yield from zip(chosen, predict_tissue(load_network(config, path), images), strict=True)


def _tissue_files(folder: Path, folds: Sequence[int]) -> dict[int, Path]:
    """Fold → the weights of its tissue network."""
    paths = {fold: folder / f"fold{fold}" / NETWORK for fold in folds}
    missing = [fold for fold, path in paths.items() if not path.exists()]
    if missing:
        raise TrainingError(
            f"tissue networks of fold {', '.join(map(str, missing))} are not there yet: cell networks "
            "see out-of-fold tissue predictions; run `softctm train tissue` for every fold first"
        )
    return paths
