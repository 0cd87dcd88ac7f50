"""Datasets of single images by name. A new one is one file beside `crchisto` and a line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from softctm.datasets.crchisto import load_crchisto
from softctm.datasets.ebhi_seg import load_ebhi_seg
from softctm.datasets.glas import load_glas
from softctm.datasets.labeled_images import LabeledImage
from softctm.datasets.nucleus_masks import load_consep, load_monuseg
from softctm.errors import UsageError

IMAGE_DATASETS: dict[str, Callable[[Path], Sequence[LabeledImage]]] = {
    "consep": load_consep,
    "crchisto": load_crchisto,
    "ebhi-seg": load_ebhi_seg,
    "glas": load_glas,
    "monuseg": load_monuseg,
}
"""Name → what lists the images of its folder."""


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
        load = IMAGE_DATASETS[name]
    except KeyError:
        raise UsageError(f"dataset '{name}': unknown; choose one of {', '.join(IMAGE_DATASETS)}") from None
    return load(folder)
