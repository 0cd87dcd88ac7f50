"""Fields of view that overlap, and which of two fields' nuclei are one and the same.

A large image is segmented field by field. Each field has a core; the cores tile the image. A nucleus may be
seen by several fields, whole or cut off by a field's border. It is kept once:

1. A nucleus that touches a border of its field is left to the neighbor, if that sees all of it.
2. Nuclei of two fields are taken for the same if they share more than a fifth of the smaller one's pixels;
   two that are both cut off, if they share any.
3. Of those the one stays that is whole and whose center lies in its field's core; else one that is whole;
   else one that is cut off. Of equals the larger stays, then the first in row-major order of the centers.

So every nucleus that some field sees as a whole is kept, whichever field it is, and none is kept twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from softctm.nuclei_table import NucleiTable
from softctm.postprocessing.label_overlap import label_overlap

FIELD_SIZE = 1024
FIELD_OVERLAP = 64
"""Pixels that neighboring fields share."""

SAME_SHARE = 0.2
"""Share of the smaller nucleus' pixels above which two nuclei of different fields are the same."""

_OWN, _FOREIGN, _CUT, _LEFT = range(4)


class Box(NamedTuple):
    """A half-open rectangle of the whole image, pixels."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Field:
    """What is segmented at once.

    Attributes
    ----------
    box : Box
        What the field shows of the image.
    core : Box
        Its own part. On a side where it reaches up to the box, the image ends there; on the others it leaves
        a margin, half of what the neighboring fields share.
    """

    box: Box
    core: Box

    def __post_init__(self) -> None:
        (left, top, right, bottom), core = self.box, self.core
        if not (left <= core.left < core.right <= right and top <= core.top < core.bottom <= bottom):
            raise ValueError(f"the core {tuple(core)} must lie in the box {tuple(self.box)}")


@dataclass(frozen=True)
class FieldNuclei:
    """The nuclei of one field; map and table in the field's own pixels, from its top left corner.

    Attributes
    ----------
    field : Field
    instances : (H, W) integer
        Of the box's size.
    table : NucleiTable
        The nuclei of the map that count; others are ignored.
    """

    field: Field
    instances: NDArray[np.integer]
    table: NucleiTable

    def __post_init__(self) -> None:
        left, top, right, bottom = self.field.box
        if self.instances.shape != (bottom - top, right - left):
            raise ValueError(f"the map must have its box's size, not {self.instances.shape}")


def field_lattice(
    width: int, height: int, *, size: int = FIELD_SIZE, overlap: int = FIELD_OVERLAP
) -> Iterator[Field]:
    """The fields that cover an image, in row-major order, anchored at its origin.

    Parameters
    ----------
    width, height : int
        Of the image, pixels.
    size : int
        Side of a field; the last of a row or column ends where the image does.
    overlap : int
        Pixels that neighbors share: even, at most half of `size`.
    """
    if overlap % 2 or not 0 < overlap <= size // 2:
        raise ValueError(f"overlap must be even and at most {size // 2}, not {overlap}")
    for top, bottom, core_top, core_bottom in _spans(height, size, overlap):
        for left, right, core_left, core_right in _spans(width, size, overlap):
            yield Field(Box(left, top, right, bottom), Box(core_left, core_top, core_right, core_bottom))


def _spans(length: int, size: int, overlap: int) -> list[tuple[int, int, int, int]]:
    """Start, end, start of core, end of core along one axis."""
    starts = range(0, max(length - overlap, 1), size - overlap)
    spans = []
    for start in starts:
        end = min(start + size, length)
        core_start = start + overlap // 2 if start else 0
        core_end = end - overlap // 2 if start != starts[-1] else end
        spans.append((start, end, core_start, core_end))
    return spans


class FieldJoiner:
    """Decide which nuclei stay, field by field; holds no more maps than the strips of one row of fields.

    Fields are added in row-major order. Their numbers, 0 …, are in the order of adding.
    """

    def __init__(self) -> None:
        self._strips: list[tuple[int, list[_Strip]]] = []
        self._rank: list[NDArray[np.intp]] = []
        self._keys: list[NDArray[np.float64]] = []
        self._count = 0
        self._pairs: list[NDArray[np.int64]] = []

    def add(self, nuclei: FieldNuclei) -> None:
        """Take a field's nuclei into account."""
        box, table = nuclei.field.box, nuclei.table
        rank = _rank(nuclei)
        self._keys.append(np.column_stack((-table.area_px, table.y + box.top, table.x + box.left)))
        # From a number in the map to a candidate's place among all fields'; those not in the table have none.
        place = np.full(int(nuclei.instances.max(initial=0)) + 1, 0)
        candidate = np.where(rank != _LEFT, self._count + np.arange(len(table)) + 1, 0)
        place[table.id] = candidate
        numbered = place[nuclei.instances]
        self._rank.append(rank)
        self._count += len(table)
        self._strips = [entry for entry in self._strips if entry[0] > box.top]
        for _, strips in self._strips:
            # One of a field's two strips holds all that is shared; the other repeats at most a part of it.
            found = [pairs for strip in strips if len(pairs := strip.shared_with(box, numbered))]
            if found:
                self._pairs.append(max(found, key=lambda pairs: int(pairs[:, 2].sum())))
        self._strips.append((box.bottom, _strips(nuclei.field, numbered)))

    def finish(self) -> list[NDArray[np.bool_]]:
        """Which rows of each field's table stay, in the order of adding."""
        if not self._rank:
            return []
        rank, keys = np.concatenate(self._rank), np.concatenate(self._keys)
        keep = rank != _LEFT
        pairs = np.concatenate([np.zeros((0, 3), np.int64), *self._pairs])
        first, second = pairs[:, 0] - 1, pairs[:, 1] - 1
        smaller = -np.maximum(keys[first, 0], keys[second, 0])
        both_cut = (rank[first] == _CUT) & (rank[second] == _CUT)
        same = pairs[:, 2] > np.where(both_cut, 0, SAME_SHARE * smaller)
        rivals: dict[int, list[int]] = {}
        for one, other in zip(first[same].tolist(), second[same].tolist(), strict=True):
            rivals.setdefault(one, []).append(other)
            rivals.setdefault(other, []).append(one)
        contested = np.array(sorted(rivals), np.intp)
        keep[contested] = False
        y, x = keys[contested, 1], keys[contested, 2]
        for index in contested[np.lexsort((x, y, keys[contested, 0], rank[contested]))].tolist():
            keep[index] = not any(keep[rival] for rival in rivals[index])
        return np.split(keep, np.cumsum([len(part) for part in self._rank])[:-1])


def join_fields(
    fields: Iterable[FieldNuclei], width: int, height: int
) -> tuple[NDArray[np.int32], NucleiTable, NDArray[np.intp]]:
    """One instance map and one table of an image from its fields, in row-major order.

    Returns
    -------
    instances : (height, width) int32
        1 … n. A pixel that two kept nuclei claim is the earlier field's.
    table : NucleiTable
        Ids as in the map, positions and boxes in the image. What was measured is as the field saw it.
    source : (N,) int
        Each nucleus' row in the fields' tables, one table after the other.
    """
    fields, joiner = list(fields), FieldJoiner()
    for nuclei in fields:
        joiner.add(nuclei)
    instances, tables = np.zeros((height, width), np.int32), [NucleiTable.empty()]
    count, kept = 0, joiner.finish()
    for nuclei, keep in zip(fields, kept, strict=True):
        left, top, right, bottom = nuclei.field.box
        table = nuclei.table.where(keep)
        numbers = np.zeros(int(nuclei.instances.max(initial=0)) + 1, np.int32)
        numbers[table.id] = count + 1 + np.arange(len(table))
        count += len(table)
        window = instances[top:bottom, left:right]
        np.copyto(window, numbers[nuclei.instances], where=window == 0)
        tables.append(table.moved(left, top, numbers[table.id]))
    columns = {name: np.concatenate([vars(table)[name] for table in tables]) for name in vars(tables[0])}
    source = np.flatnonzero(np.concatenate(kept)) if kept else np.zeros(0, np.intp)
    return instances, NucleiTable(**columns), source


def _rank(nuclei: FieldNuclei) -> NDArray[np.intp]:
    """How much right each nucleus has to stay: `_OWN`, `_FOREIGN`, `_CUT`, or `_LEFT` to the neighbor."""
    box, core, table = nuclei.field.box, nuclei.field.core, nuclei.table
    # Pixel centers lie at + 0.5 of the pixel's corner.
    x, y = table.x + 0.5 + box.left, table.y + 0.5 + box.top
    is_inside = (core.left <= x) & (x < core.right) & (core.top <= y) & (y < core.bottom)
    rank = np.where(is_inside, _OWN, _FOREIGN)
    is_cut, is_seen = np.zeros(len(table), bool), np.ones(len(table), bool)
    near = table.box + np.tile((box.top, box.left), 2)
    sides = (
        (core.top - box.top, near[:, 0] - box.top, near[:, 2] - box.top),
        (core.left - box.left, near[:, 1] - box.left, near[:, 3] - box.left),
        (box.bottom - core.bottom, box.bottom - near[:, 2], box.bottom - near[:, 0]),
        (box.right - core.right, box.right - near[:, 3], box.right - near[:, 1]),
    )
    for margin, distance, reach in sides:
        touches = (distance == 0) & (margin > 0)
        is_cut |= touches
        # The neighbor's own border lies two margins in: strictly before it, the neighbor sees it all.
        is_seen &= ~touches | (reach < 2 * margin)
    rank[is_cut] = np.where(is_seen, _LEFT, _CUT)[is_cut]
    return rank


@dataclass(frozen=True)
class _Strip:
    """A part of a field's map, with places of candidates (from 1) instead of numbers."""

    left: int
    top: int
    numbered: NDArray[np.int64]

    def shared_with(self, box: Box, numbered: NDArray[np.int64]) -> NDArray[np.int64]:
        """(K, 3) Own candidate, the other's, shared pixels, with the map of another field's box."""
        height, width = self.numbered.shape
        left, top = max(self.left, box.left), max(self.top, box.top)
        right, bottom = min(self.left + width, box.right), min(self.top + height, box.bottom)
        if left >= right or top >= bottom:
            return np.zeros((0, 3), np.int64)
        own = self.numbered[top - self.top : bottom - self.top, left - self.left : right - self.left]
        other = numbered[top - box.top : bottom - box.top, left - box.left : right - box.left]
        found = label_overlap(own, other)
        return np.column_stack((found.first, found.second, found.pixels))


def _strips(field: Field, numbered: NDArray[np.int64]) -> list[_Strip]:
    """What later fields will share: two margins at the bottom, and at the right."""
    box, core = field.box, field.core
    below, beside = 2 * (box.bottom - core.bottom), 2 * (box.right - core.right)
    height, width = numbered.shape
    return [
        _Strip(box.left, box.bottom - below, numbered[height - below :].copy()),
        _Strip(box.right - beside, box.top, numbered[:, width - beside :].copy()),
    ]
