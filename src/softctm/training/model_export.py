"""From trained networks to a model folder: ONNX files, checked against PyTorch, and their manifest."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from softctm import __version__
from softctm.errors import ModelError
from softctm.model.manifest import (
    AROUND,
    RGB,
    Head,
    Manifest,
    NetworkEntry,
    NetworkFile,
    StageEntry,
    StageInput,
)
from softctm.model.tasks import CELL_CLASSES, TISSUE_CLASSES
from softctm.networks.architecture import SegmentationNetwork
from softctm.networks.fuse_batch_norm import fuse_batch_norm
from softctm.networks.joint import PairNetwork
from softctm.networks.onnx_export import export_onnx
from softctm.networks.served import ServedHeads
from softctm.networks.window import window_plane
from softctm.pair import CELL_MPP, PATCH_SIZE, TISSUE_MPP, ZOOM
from softctm.storage.files import sha256_of
from softctm.training.cross_validation import EnsembleRun
from softctm.training.run_folder import FOLDS

_log = logging.getLogger(__name__)

MAX_DIFFERENCE = 5e-3
"""Largest difference in probability between PyTorch and the exported file that is accepted."""


def export_network(network: SegmentationNetwork, path: Path) -> float:
    """Write one network as ONNX: dynamic batch, 16-bit weights, 32-bit arithmetic, logits of each head out.

    Returns
    -------
    float
        Largest difference in probability between PyTorch (32-bit weights) and ONNX Runtime on a random
        image, at most `MAX_DIFFERENCE`.

    Raises
    ------
    ModelError
        If the difference is larger.
    """
    served = ServedHeads(fuse_batch_norm(network.cpu())).eval()
    channels = 3 + network.config.context_channels
    example = torch.rand(2, channels, PATCH_SIZE, PATCH_SIZE, generator=torch.Generator().manual_seed(0))
    if isinstance(network, PairNetwork):
        example[:, -1] = window_plane((0.3, 0.6, 1 / ZOOM, 1 / ZOOM), PATCH_SIZE)
    export_onnx(served, example, list(network.heads), path, always_halve=True)
    return _difference(ServedHeads(network.eval()), path, example[:1])


def _difference(served: ServedHeads, path: Path, example: torch.Tensor) -> float:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: example.numpy()})
    with torch.inference_mode():
        heads = served(example)
    differences = [
        (torch.from_numpy(logits).softmax(1) - expected.softmax(1)).abs().max()
        for logits, expected in zip(outputs, heads, strict=True)
    ]
    difference = float(torch.stack(differences).max())
    if not difference <= MAX_DIFFERENCE:
        raise ModelError(
            f"{path.name}: differs from PyTorch by {difference:.2g} in probability, more than "
            f"{MAX_DIFFERENCE}"
        )
    return difference


def export_ensemble(
    ensemble: EnsembleRun, folder: Path, name: str, facts: Mapping[str, Any]
) -> dict[str, float]:
    """Write every network of a run and `model.json`.

    The detector's model is the tissue network of fold 0 and the cell networks of all folds; the other tissue
    networks, which only out-of-fold validation needs, go to `validation/` with the folds. Where the cell
    networks see both patches, they are all.

    Parameters
    ----------
    ensemble : EnsembleRun
        A finished run.
    folder : Path
        An empty folder for the model.
    name : str
        The model's name.
    facts : mapping
        What the manifest's `training` says beyond the recipe, and `licenses` and `attributions` of the model.

    Returns
    -------
    dict
        File name → largest difference from PyTorch in probability.
    """
    folds = sorted(set(ensemble.fold_of()))
    differences = {}
    entries: dict[str, list[NetworkEntry]] = {"tissue": [], "cells": [], "validation": []}
    coupling = ensemble.preset.cells.coupling
    for fold in folds:
        places = [("cells", f"cell_fold{fold}.onnx", ensemble.cell_network)]
        if "tissue" in ensemble.preset.tasks:
            group = "tissue" if fold == folds[0] else "validation"
            file = f"tissue_fold{fold}.onnx" if fold == folds[0] else f"validation/tissue_fold{fold}.onnx"
            places.insert(0, (group, file, ensemble.tissue_network))
        for group, file, load in places:
            differences[file] = export_network(load(fold), folder / file)
            _log.info("%s: largest difference from PyTorch %.2g in probability", file, differences[file])
            stored = NetworkFile(path=file, sha256=sha256_of(folder / file))
            entries[group].append(NetworkEntry(fold=fold, files={"float32": stored}))
    (folder / "validation").mkdir(exist_ok=True)
    (folder / "validation" / FOLDS).write_bytes(ensemble.folds_path.read_bytes())
    cells, tissue = (
        Head(name=name, classes=classes, activation="logits")
        for name, classes in (("cells", CELL_CLASSES), ("tissue", TISSUE_CLASSES))
    )
    seen: tuple[str, ...] = ()
    stages = {}
    if ensemble.preset.cells.sees_pair:
        seen = AROUND
    else:
        seen = () if coupling == "none" else tuple(f"tissue.{label}" for label in TISSUE_CLASSES)
        stages["tissue"] = StageEntry(
            input=StageInput(size=PATCH_SIZE, mpp=TISSUE_MPP, channels=RGB),
            heads=(tissue,),
            networks=tuple(entries["tissue"]),
            validation=tuple(entries["validation"]),
        )
    stages["cells"] = StageEntry(
        input=StageInput(size=PATCH_SIZE, mpp=CELL_MPP, channels=(*RGB, *seen)),
        heads=(cells, tissue) if coupling == "joint" else (cells,),
        networks=tuple(entries["cells"]),
    )
    network = ensemble.preset.cells.network
    Manifest(
        task="joint-cell-points" if ensemble.preset.cells.sees_pair else "cell-points",
        name=name,
        version=__version__,
        description=f"{network.architecture} with {network.encoder}, {len(folds)} cell networks",
        licenses=tuple(dict.fromkeys(facts["licenses"])),
        attributions=tuple(facts.get("attributions", ())),
        stages=stages,
        postprocessing={"method": "peaks"},
        folds="validation/folds.json",
        training={
            **{key: value for key, value in facts.items() if key not in ("licenses", "attributions")},
            "pairs": len(ensemble.pairs),
            "patients": len({pair.patient for pair in ensemble.pairs}),
            "commit": ensemble.commit(),
            "preset": asdict(ensemble.preset),
            "seed": ensemble.loop.seed,
            "largest_difference_from_pytorch": max(differences.values()),
        },
    ).write(folder)
    return differences
