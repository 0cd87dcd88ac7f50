"""Out-of-fold nuclei of a run: every image by the network that never saw it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from softctm.errors import UsageError
from softctm.networks.architecture import SegmentationNetwork
from softctm.networks.device import own_device
from softctm.networks.nuclei_maps import stacked
from softctm.networks.served import ServedNetwork
from softctm.networks.vit import TOKEN
from softctm.nuclei_table import types_named
from softctm.postprocessing.hover import classify_nuclei, separate_nuclei
from softctm.postprocessing.measured_nuclei import measured_nuclei
from softctm.storage.files import prepare_folder
from softctm.training.nuclei.run import NucleiRun
from softctm.writers.label_image import LABEL_FILE, write_label_image
from softctm.writers.nuclei_files import CsvWriter


def predict_out_of_fold(
    run: NucleiRun, folder: Path, folds: Sequence[int] | None = None
) -> dict[str, list[str]]:
    """Write `instances.tif` and `nuclei.csv` of every image that a fold held out.

    Parameters
    ----------
    run : NucleiRun
    folder : Path
        Gets one folder per data set, and in it one an image.
    folds : sequence of int, optional
        By default all.

    Returns
    -------
    dict of str to list of str
        Data set → names of its images that were predicted.

    Raises
    ------
    UsageError
        If the run has no such fold.
    TrainingError
        If a fold's network is not there yet.
    OutputError
        If the folder cannot be written to.
    """
    types = types_named(run.types[1:])
    fold_of = run.fold_of()
    if absent := {*(folds or ())} - {*fold_of}:
        raise UsageError(
            f"--fold {min(absent)}: the run's folds are {', '.join(map(str, sorted({*fold_of})))}"
        )
    written: dict[str, list[str]] = {}
    for fold in sorted(set(fold_of if folds is None else folds)):
        network = run.network(fold)
        chosen = [image for image, own in zip(run.images, fold_of, strict=True) if own == fold]
        for image in tqdm(chosen, desc=f"fold {fold}", unit="image"):
            binary, hv, kinds = nuclei_maps(network, image.image)
            instances = separate_nuclei(binary, hv[0], hv[1], magnification=run.config.magnification)
            table = classify_nuclei(instances, kinds)
            place = folder / image.name
            prepare_folder(place)
            write_label_image(place / LABEL_FILE, instances, mpp=run.config.mpp)
            with CsvWriter(place / "nuclei.csv", types) as writer:
                writer.add(measured_nuclei(image.image, instances, table, mpp=run.config.mpp))
            dataset, name = image.name.split("/", 1)
            written.setdefault(dataset, []).append(name)
    return written


def nuclei_maps(
    network: nn.Module, image: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """What a trained network finds in a whole image.

    Parameters
    ----------
    network : nn.Module
        Of `build_nuclei_network`, in evaluation mode.
    image : (H, W, 3) uint8
        RGB.

    Returns
    -------
    binary : (H, W) uint8
    hv : (2, H, W) float32
    types : (H, W) uint8
        0 is background.
    """
    served: nn.Module = network
    multiple = TOKEN
    if isinstance(network, SegmentationNetwork):
        served, multiple = ServedNetwork(network), network.multiple * network.config.downsampling
    height, width = image.shape[:2]
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    below, right = -height % multiple, -width % multiple
    padded: Tensor = functional.pad(pixels, (0, right, 0, below), mode="replicate")
    device = own_device()
    served.to(device).eval()
    with torch.inference_mode():
        maps = stacked(served(padded.to(device)))[0][0, :, :height, :width].float().cpu()
    return (
        maps[:2].argmax(0).numpy().astype(np.uint8),
        maps[2:4].numpy(),
        maps[4:].argmax(0).numpy().astype(np.uint8),
    )
