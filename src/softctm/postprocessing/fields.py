"""Which nuclei of fields of view that overlap are one and the same, and which of them stays.

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

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softctm.box import Box
from softctm.nuclei_table import NucleiTable
from softctm.postprocessing.field_lattice import Field
from softctm.postprocessing.label_overlap import LabelOverlap, label_overlap
from softctm.postprocessing.rivals import losers

SAME_SHARE = 0.2
"""Share of the smaller nucleus' pixels above which two nuclei of different fields are the same."""

_OWN, _FOREIGN, _CUT, _LEFT = range(4)


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


class FieldJoiner:
    """Decide which nuclei stay, field by field, in row-major order of the fields.

    Holds of the maps no more than the strips of one row of fields, and of the nuclei what is contested.
    """

    def __init__(self) -> None:
        self._seen: list[_Seen] = []
        self._left: list[NDArray[np.bool_]] = []
        self._count = 0
        self._rivals: list[NDArray[np.void]] = []

    def add(self, nuclei: FieldNuclei) -> None:
        """Take a field's nuclei into account."""
        box, table = nuclei.field.box, nuclei.table
        keys = np.zeros(len(table), _KEY)
        keys["number"] = self._count + np.arange(len(table))
        keys["rank"], keys["area"] = _rank(nuclei), table.area_px
        keys["y"], keys["x"] = table.y + box.top, table.x + box.left
        # From a number in the map to a row of the table, from 1; those not in it, or left, have none.
        row = np.zeros(int(nuclei.instances.max(initial=0)) + 1, np.int32)
        is_left = keys["rank"] == _LEFT
        row[table.id] = np.where(is_left, 0, np.arange(len(table)) + 1)
        rows = row[nuclei.instances]
        self._seen = [other for other in self._seen if other.bottom > box.top]
        for other in self._seen:
            # One of a field's two strips holds all that is shared; the other repeats at most a part of it.
            found = max((strip.shared_with(box, rows) for strip in other.strips), key=_shared_pixels)
            if len(found.pixels):
                self._rivals.append(_rivals(other.keys[found.first - 1], keys[found.second - 1], found))
        self._seen.append(_Seen(box.bottom, _strips(nuclei.field, rows), keys))
        self._left.append(is_left)
        self._count += len(table)

    def finish(self) -> list[NDArray[np.bool_]]:
        """Which rows of each field's table stay, in the order of adding."""
        pairs = np.concatenate([np.zeros((0, 2), _KEY), *self._rivals])
        numbers, first, place = np.unique(pairs["number"], return_index=True, return_inverse=True)
        contested = pairs.ravel()[first]
        rank = np.empty(len(contested), np.int64)
        by = (contested["x"], contested["y"], -contested["area"], contested["rank"])
        rank[np.lexsort(by)] = np.arange(len(contested))
        gone = np.zeros(self._count, np.bool_)
        gone[numbers] = losers(place.reshape(-1, 2), rank)
        kept, start = [], 0
        for left in self._left:
            kept.append(~left & ~gone[start : start + len(left)])
            start += len(left)
        return kept


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
    source = np.flatnonzero(np.concatenate(kept)) if kept else np.zeros(0, np.intp)
    return instances, NucleiTable.concatenated(tables), source


def left_to_neighbor(nuclei: FieldNuclei) -> NDArray[np.bool_]:
    """(N,) Which nuclei of a field's table are left to a neighbor, which sees all of them."""
    left: NDArray[np.bool_] = _rank(nuclei) == _LEFT
    return left


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


_KEY = np.dtype([("number", "i8"), ("rank", "i8"), ("area", "i8"), ("y", "f8"), ("x", "f8")])
"""What decides on a nucleus, and its place among those of all fields."""


@dataclass(frozen=True)
class _Strip:
    """A part of a field's map, with rows of its table (from 1) instead of numbers."""

    left: int
    top: int
    rows: NDArray[np.integer]

    def shared_with(self, box: Box, rows: NDArray[np.int32]) -> LabelOverlap:
        """Own rows, the other's, and the pixels that they share, with the map of another field's box."""
        height, width = self.rows.shape
        left, top = max(self.left, box.left), max(self.top, box.top)
        right, bottom = min(self.left + width, box.right), min(self.top + height, box.bottom)
        right, bottom = max(left, right), max(top, bottom)
        own = self.rows[top - self.top : bottom - self.top, left - self.left : right - self.left]
        other = rows[top - box.top : bottom - box.top, left - box.left : right - box.left]
        return label_overlap(own, other)


@dataclass(frozen=True)
class _Seen:
    """What later fields need of an earlier one."""

    bottom: int
    strips: list[_Strip]
    keys: NDArray[np.void]


def _strips(field: Field, rows: NDArray[np.int32]) -> list[_Strip]:
    """What later fields will share: two margins at the bottom, and at the right."""
    box, core = field.box, field.core
    below, beside = 2 * (box.bottom - core.bottom), 2 * (box.right - core.right)
    height, width = rows.shape
    kind = np.min_scalar_type(int(rows.max(initial=0)))
    return [
        _Strip(box.left, box.bottom - below, rows[height - below :].astype(kind)),
        _Strip(box.right - beside, box.top, rows[:, width - beside :].astype(kind)),
    ]


def _shared_pixels(found: LabelOverlap) -> int:
    return int(found.pixels.sum())


def _rivals(first: NDArray[np.void], second: NDArray[np.void], found: LabelOverlap) -> NDArray[np.void]:
    """(K, 2) Of pairs that share pixels, those that are taken for the same nucleus."""
    smaller = np.minimum(first["area"], second["area"])
    both_cut = (first["rank"] == _CUT) & (second["rank"] == _CUT)
    same = found.pixels > np.where(both_cut, 0, SAME_SHARE * smaller)
    return np.stack((first[same], second[same]), axis=1)
