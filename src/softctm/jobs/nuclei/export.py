"""A run of nuclei networks as a model folder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from softctm import __version__
from softctm.errors import ModelError, UsageError
from softctm.model.manifest import Manifest
from softctm.networks.architecture import SegmentationNetwork
from softctm.networks.cellvit import CellViTOutput
from softctm.networks.fuse_batch_norm import fuse_batch_norm
from softctm.networks.network_table import architecture_of
from softctm.networks.nuclei_maps import MAPS, NamedMaps, NormalizedCellViT, nuclei_stage
from softctm.networks.onnx_export import export_onnx, largest_difference
from softctm.networks.served import ServedNetwork
from softctm.networks.vit import TOKEN
from softctm.storage.files import prepare_folder, sha256_of
from softctm.training.nuclei.folds import ALL
from softctm.training.nuclei.run import NucleiRun
from softctm.training.nuclei.starts import KNOWN_IMAGES
from softctm.training.run_folder import CONFIG, NETWORK, inherited, read_run_file

MAX_DIFFERENCE = 2e-2
"""Largest difference from PyTorch that is accepted of 16-bit weights, over the largest value of a map."""


def export_nuclei(
    run: NucleiRun, folder: Path, name: str, size: int, licenses: list[str], attributions: list[str]
) -> Manifest:
    """Write a run's networks and `model.json`.

    Where the run has a network of all images, that one alone; else the folds' networks, which are averaged.

    Parameters
    ----------
    run : NucleiRun
    folder : Path
        An empty folder for the model.
    name : str
    size : int
        Pixels a side of the fields that networks will be given.
    licenses, attributions : list of str
        Of the weights and of what they were made from; those of what the run began with are added.

    Raises
    ------
    UsageError
        If the size does not fit the network.
    TrainingError
        If a network is not there yet.
    ModelError
        If an exported network computes something else than PyTorch.
    OutputError
        If the folder cannot be written to.
    """
    network = run.config.network
    multiple = TOKEN if isinstance(network, str) else architecture_of(network).multiple * network.downsampling
    if size < multiple or size % multiple:
        raise UsageError(f"--size {size}: must be a multiple of {multiple}")
    prepare_folder(folder)
    has_all = (run.place(None) / NETWORK).exists()
    folds = [None] if has_all else sorted(set(run.fold_of()))
    entries, differences = [], []
    for fold in folds:
        file = f"nuclei_{ALL if fold is None else f'fold{fold}'}.onnx"
        differences.append(_export(run.network(fold), folder / file, size))
        digest = sha256_of(folder / file)
        entries.append({"fold": fold, "files": {"float32": {"path": file, "sha256": digest}}})
    config = read_run_file(run.folder / CONFIG)
    licenses, attributions = inherited(config, licenses, attributions)
    encoder = run.config.network if isinstance(run.config.network, str) else None
    stage = nuclei_stage(size, run.config.mpp, run.types, encoder)
    learned = "trained on all images" if has_all else f"{len(folds)} folds"
    manifest = Manifest.model_validate(
        {
            "task": "nuclei",
            "name": name,
            "version": __version__,
            "description": f"nuclei by preset {run.preset}, {learned}",
            "licenses": licenses,
            "attributions": attributions,
            "stages": {"nuclei": stage | {"networks": entries}},
            "postprocessing": {"method": "hover", "magnification": run.config.magnification},
            "training": {
                **config,
                KNOWN_IMAGES: run.known_images(),
                "largest_difference_from_pytorch": max(differences),
                "storage": "float16 weights, float32 arithmetic",
            },
        }
    )
    manifest.write(folder)
    return manifest


def _export(network: nn.Module, path: Path, size: int) -> float:
    outputs: tuple[str, ...]
    exported: nn.Module
    original: nn.Module
    outputs, exported, original = CellViTOutput._fields, network, network
    if isinstance(network, NormalizedCellViT):
        network.network.encoder.fix_size(size // TOKEN, size // TOKEN)
    elif isinstance(network, SegmentationNetwork):
        outputs = MAPS
        exported = NamedMaps(ServedNetwork(fuse_batch_norm(network))).eval()
        original = NamedMaps(ServedNetwork(network)).eval()
    example = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    export_onnx(exported, example, outputs, path, always_halve=True)
    difference = largest_difference(original, path, example[:1])
    if not difference <= MAX_DIFFERENCE:
        raise ModelError(
            f"{path.name}: differs from PyTorch by {difference:.2g} of a map's largest value, "
            f"more than {MAX_DIFFERENCE}"
        )
    return difference
