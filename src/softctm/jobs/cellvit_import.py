"""From a published CellViT checkpoint to a model folder, checked against PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from softctm import __version__
from softctm.errors import ModelError, UsageError
from softctm.model.manifest import Manifest
from softctm.networks.cellvit import CellViTOutput
from softctm.networks.cellvit_checkpoint import Checkpoint, read_checkpoint
from softctm.networks.nuclei_maps import NormalizedCellViT, nuclei_stage
from softctm.networks.onnx_export import export_onnx, largest_difference
from softctm.networks.vit import TOKEN
from softctm.storage.files import prepare_folder, sha256_of

FILE = "cellvit.onnx"
LICENSE = "as the authors of the CellViT checkpoint state it"
MAX_DIFFERENCE = 1e-3
MAX_DIFFERENCE_FLOAT16 = 2e-2
"""Largest difference from PyTorch that is accepted, over the largest value of the output."""


def import_cellvit(
    path: Path,
    folder: Path,
    size: int = 1024,
    license_text: str = LICENSE,
    magnification: int | None = None,
) -> Manifest:
    """Turn a checkpoint into a model folder: one ONNX file and `model.json`.

    Parameters
    ----------
    path : Path
        The checkpoint.
    folder : Path
        An empty folder for the model.
    size : int
        Pixels a side of the fields that the network will be given; a multiple of 16.
    license_text : str
        Of the weights.
    magnification : 40 or 20, optional
        What the network was trained at, 0.25 or 0.5 µm per pixel; by default 20 where the file's name says
        x20, as published ones do, else 40.

    Returns
    -------
    Manifest

    Raises
    ------
    UsageError
        If the size does not fit.
    ModelError
        If the checkpoint cannot be imported (see `read_checkpoint`), or the exported network computes
        something else than PyTorch.
    OutputError
        If the folder cannot be written to.
    """
    if size < 4 * TOKEN or size % TOKEN:
        raise UsageError(f"--size {size}: must be a multiple of {TOKEN} of at least {4 * TOKEN}")
    magnification = magnification or (20 if "x20" in path.stem.lower() else 40)
    checkpoint = read_checkpoint(path)
    prepare_folder(folder)
    checkpoint.network.encoder.fix_size(size // TOKEN, size // TOKEN)
    served = NormalizedCellViT(checkpoint.network, checkpoint.mean, checkpoint.std).eval()
    example = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    halved = export_onnx(served, example, CellViTOutput._fields, folder / FILE)
    difference = largest_difference(served, folder / FILE, example[:1])
    allowed = MAX_DIFFERENCE_FLOAT16 if halved else MAX_DIFFERENCE
    if not difference <= allowed:
        raise ModelError(
            f"{FILE}: differs from PyTorch by {difference:.2g} of the largest value, more than {allowed}"
        )
    facts = {
        "largest_difference_from_pytorch": difference,
        "storage": "float16 weights, float32 arithmetic" if halved else "float32",
    }
    manifest = _manifest(checkpoint, path, folder, size, magnification, license_text, facts)
    manifest.write(folder)
    return manifest


def _manifest(
    checkpoint: Checkpoint,
    path: Path,
    folder: Path,
    size: int,
    magnification: int,
    license_text: str,
    facts: dict[str, Any],
) -> Manifest:
    network = {"files": {"float32": {"path": FILE, "sha256": sha256_of(folder / FILE)}}}
    stage = nuclei_stage(size, 10 / magnification, checkpoint.types, checkpoint.network.spec.encoder)
    return Manifest.model_validate(
        {
            "task": "nuclei",
            "name": checkpoint.kind,
            "version": __version__,
            "description": f"{checkpoint.kind}, imported from {path.name}",
            "licenses": [license_text],
            "attributions": ["Hörst et al., CellViT, arXiv 2306.15350"],
            "stages": {"nuclei": stage | {"networks": [network]}},
            "postprocessing": {"method": "hover", "magnification": magnification},
            "training": {
                "checkpoint": path.name,
                "checkpoint_sha256": sha256_of(path),
                "tissues": list(checkpoint.tissues),
                **facts,
            },
        }
    )
