"""MoNuSeg as it is published: an image and an XML file of outlines (Aperio ImageScope) each.

Both may lie anywhere below the folder (`Tissue Images` and `Annotations` in the training archive, side by
side in the test archive); an XML file belongs to the image of its name. Nuclei have no types. Where outlines
overlap, the first one drawn has the pixels.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon

from softctm.datasets.dataset_images import IMAGE_ENDINGS, read_rgb
from softctm.datasets.nuclei.base import UNTYPED, NucleiDataset, NucleiLabels
from softctm.errors import InputError
from softctm.nuclei_table import tabulate


class MoNuSeg(NucleiDataset):
    """A data set of this layout."""

    types = UNTYPED

    def __init__(self, folder: Path) -> None:
        self._outlines = sorted(folder.rglob("*.xml"), key=lambda path: path.stem)
        self.names = [path.stem for path in self._outlines]
        if len(set(self.names)) < len(self.names):
            raise InputError(f"{folder}: two XML files have one name; remove one")
        images = defaultdict(list)
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in IMAGE_ENDINGS:
                images[path.stem].append(path)
        self._images = [_only_image(name, images[name], folder) for name in self.names]
        self.organs: list[str | None] = [None] * len(self.names)

    @staticmethod
    def recognizes(folder: Path) -> bool:
        """Whether a folder has this layout."""
        return next(folder.rglob("*.xml"), None) is not None

    def image(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) RGB."""
        return read_rgb(self._images[index])

    def labels(self, index: int) -> NucleiLabels:
        """The nuclei of that image, numbered in the order of drawing."""
        instances = np.zeros(self.image(index).shape[:2], np.int32)
        count = 0
        for corners in _polygons(self._outlines[index]):
            # Vertices count from the image's corner, pixel centers lie at + 0.5.
            rows, columns = polygon(corners[:, 1] - 0.5, corners[:, 0] - 0.5, instances.shape)
            free = instances[rows, columns] == 0
            if free.any():
                count += 1
                instances[rows[free], columns[free]] = count
        return NucleiLabels(instances, tabulate(instances, (instances > 0).astype(np.int64)))


def _only_image(name: str, found: list[Path], folder: Path) -> Path:
    if not found:
        raise InputError(f"{folder}: no image {name} ({', '.join(IMAGE_ENDINGS)}); add it")
    if len(found) > 1:
        first, second = (path.relative_to(folder) for path in found[:2])
        raise InputError(
            f"{folder}: {first} and {second} could both be the image of {name}.xml; move one away"
        )
    return found[0]


def _polygons(path: Path) -> list[NDArray[np.float64]]:
    """Corners (k, 2), x and y, of every region."""
    try:
        root = ET.parse(path).getroot()
        return [
            np.array([(float(v.attrib["X"]), float(v.attrib["Y"])) for v in region.iter("Vertex")]).reshape(
                -1, 2
            )
            for region in root.iter("Region")
        ]
    except (OSError, ET.ParseError, KeyError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as ImageScope's annotations ({error!r}); replace it"
        ) from None
