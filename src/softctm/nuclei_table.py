"""Nuclei as a table: position, type, box and size, one array each; the types by number, name and color."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


@dataclass(frozen=True)
class NucleusType:
    """A type of nucleus; its number is its place in the model's tuple of types, 0 is background.

    Attributes
    ----------
    name : str
    color : (int, int, int)
        RGB, 0 … 255, in which it is drawn.
    """

    name: str
    color: tuple[int, int, int]


_RED, _GREEN, _BLUE, _YELLOW = (230, 25, 40), (30, 200, 80), (35, 100, 240), (250, 235, 30)
_ORANGE, _PURPLE, _CYAN, _BROWN = (255, 150, 50), (170, 60, 220), (0, 200, 220), (160, 95, 40)
_PALETTE = (_RED, _GREEN, _BLUE, _YELLOW, _ORANGE, _PURPLE, _CYAN, _BROWN)

PANNUKE_TYPES = (
    NucleusType("background", (128, 128, 128)),
    NucleusType("neoplastic", _RED),
    NucleusType("inflammatory", _GREEN),
    NucleusType("connective", _BLUE),
    NucleusType("dead", _YELLOW),
    NucleusType("epithelial", _ORANGE),
)
"""PanNuke's types in its order, with background first: the default."""

_KNOWN = {kind.name: kind.color for kind in PANNUKE_TYPES} | {
    "malignant_epithelial": _RED,
    "fibroblast": _BLUE,
    "healthy_epithelial": _ORANGE,
}
"""Name → color; what PanNuke and CoNSeP call differently and means the same looks the same."""


def types_named(names: Sequence[str]) -> tuple[NucleusType, ...]:
    """Types 1, 2, … of these names, with background first; colors are known by name, or differ from those."""
    taken = {_KNOWN[name] for name in names if name in _KNOWN}
    free = itertools.cycle([color for color in _PALETTE if color not in taken] or _PALETTE)
    kinds = [NucleusType(name, _KNOWN[name] if name in _KNOWN else next(free)) for name in names]
    return PANNUKE_TYPES[0], *kinds


@dataclass(frozen=True)
class NucleiTable:
    """The nuclei of an instance map, a row each.

    Attributes
    ----------
    id : (N,) int32
        Value in the instance map, from 1, rising.
    x, y : (N,) float64
        Centroid: mean column and mean row of the pixels, whole numbers being pixel centers.
    type : (N,) uint8
        Number of the type; 0 where nothing but background was seen.
    type_probability : (N,) float32
        Share of the pixels that have this type, 0 … 1.
    box : (N, 4) int32
        Row min, column min, row max, column max; the maxima exclusive.
    area_px : (N,) int64
        Number of pixels.
    """

    id: NDArray[np.int32]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    type: NDArray[np.uint8]
    type_probability: NDArray[np.float32]
    box: NDArray[np.int32]
    area_px: NDArray[np.int64]

    def __post_init__(self) -> None:
        lengths = {len(column) for column in vars(self).values()}
        if len(lengths) != 1:
            raise ValueError(f"the columns must be equally long, not {sorted(lengths)}")
        if self.box.ndim != 2 or self.box.shape[1] != 4:
            raise ValueError(f"box must be (N, 4), not {self.box.shape}")

    def __len__(self) -> int:
        return len(self.id)

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> NucleiTable:
        """The nuclei that a mask (N,) or indices choose."""
        return NucleiTable(**{name: column[chosen] for name, column in vars(self).items()})

    def moved(self, x: int, y: int, ids: NDArray[np.int32]) -> NucleiTable:
        """The same nuclei with other ids, in a map whose origin lies x pixels to the left and y above."""
        box = self.box + np.array([y, x, y, x], np.int32)
        return replace(self, id=ids, x=self.x + x, y=self.y + y, box=box)

    @classmethod
    def concatenated(cls, parts: Sequence[NucleiTable]) -> NucleiTable:
        """The nuclei of several tables, one at least, in their order."""
        return cls(**{name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])})

    @classmethod
    def empty(cls) -> NucleiTable:
        """No nuclei: a valid answer."""
        return cls(
            id=np.zeros(0, np.int32),
            x=np.zeros(0),
            y=np.zeros(0),
            type=np.zeros(0, np.uint8),
            type_probability=np.zeros(0, np.float32),
            box=np.zeros((0, 4), np.int32),
            area_px=np.zeros(0, np.int64),
        )


def tabulate(instances: NDArray[np.integer], types: NDArray[np.integer]) -> NucleiTable:
    """The table of all nuclei of a map.

    The type is the most frequent one among a nucleus' pixels (of equally frequent ones that with the smaller
    number); where that is background, the second.

    Parameters
    ----------
    instances : (H, W) integer
        0 background, else the nucleus' number; memory grows with the largest number.
    types : (H, W) integer
        Type of every pixel, 0 … 255.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if instances.shape != types.shape or instances.ndim != 2:
        raise ValueError(f"instances and types must be (H, W) alike, not {instances.shape}, {types.shape}")
    rows, columns = np.nonzero(instances)
    if not len(rows):
        return NucleiTable.empty()
    labels, found = instances[rows, columns].astype(np.int64), types[rows, columns].astype(np.int64)
    kinds, length = max(int(found.max()) + 1, 2), int(labels.max()) + 1
    votes = np.bincount(labels * kinds + found, minlength=length * kinds).reshape(length, kinds)
    area = votes.sum(axis=1)
    ids = np.flatnonzero(area)
    votes, area = votes[ids], area[ids]
    kind = votes.argmax(axis=1)
    second = votes[:, 1:].argmax(axis=1) + 1
    kind = np.where((kind == 0) & (votes[:, 1:].max(axis=1) > 0), second, kind)
    boxes = ndimage.find_objects(instances.astype(np.int32, copy=False))
    corners = [(r.start, c.start, r.stop, c.stop) for r, c in (boxes[i - 1] for i in ids.tolist())]
    return NucleiTable(
        id=ids.astype(np.int32),
        x=np.bincount(labels, columns)[ids] / area,
        y=np.bincount(labels, rows)[ids] / area,
        type=kind.astype(np.uint8),
        type_probability=(votes[np.arange(len(ids)), kind] / area).astype(np.float32),
        box=np.array(corners, np.int32).reshape(-1, 4),
        area_px=area,
    )
