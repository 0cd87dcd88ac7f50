"""Datasets of single images by name. A new one is one file beside `crchisto` and a line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from softctm.datasets.crchisto import load_crchisto
from softctm.datasets.ebhi_seg import load_ebhi_seg
from softctm.datasets.glas import load_glas
from softctm.datasets.labeled_images import LabeledImage
from softctm.datasets.nucleus_masks import load_consep, load_monuseg
from softctm.errors import UsageError


@dataclass(frozen=True)
class ImageDataset:
    """One dataset.

    Attributes
    ----------
    load : callable
        Folder → its images.
    license : str
        Of the images; weights that they helped to train carry it on.
    attribution : str
        Whom to name wherever such weights go.
    """

    load: Callable[[Path], Sequence[LabeledImage]]
    license: str
    attribution: str


IMAGE_DATASETS = {
    "consep": ImageDataset(
        load_consep,
        "research only (CoNSeP)",
        "CoNSeP: Graham et al., HoVer-Net, Medical Image Analysis 2019",
    ),
    "crchisto": ImageDataset(
        load_crchisto,
        "research only (CRCHistoPhenotypes)",
        "CRCHistoPhenotypes: Sirinukunwattana et al., IEEE Transactions on Medical Imaging 2016",
    ),
    "ebhi-seg": ImageDataset(load_ebhi_seg, "CC-BY-4.0", "EBHI-Seg: Shi et al., Frontiers in Medicine 2023"),
    "glas": ImageDataset(
        load_glas,
        "research only (GlaS)",
        "GlaS: Sirinukunwattana et al., Medical Image Analysis 2017",
    ),
    "monuseg": ImageDataset(
        load_monuseg,
        "CC-BY-NC-SA-4.0",
        "MoNuSeg: Kumar et al., IEEE Transactions on Medical Imaging 2017 and 2020",
    ),
}
"""Name → dataset."""


def load_images(name: str, folder: Path) -> Sequence[LabeledImage]:
    """The images of a named dataset.

    Raises
    ------
    UsageError
        If there is no dataset of that name.
    InputError
        If the folder is not one of it.
    """
    try:
        dataset = IMAGE_DATASETS[name]
    except KeyError:
        raise UsageError(f"dataset '{name}': unknown; choose one of {', '.join(IMAGE_DATASETS)}") from None
    return dataset.load(folder)
