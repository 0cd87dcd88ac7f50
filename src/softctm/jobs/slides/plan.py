"""What there is to do on a slide: fields of view, in stretches that are computed and stored one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from softctm.jobs.slides.numbers import MM2
from softctm.slides.mask import MASK_MPP, covered_mm2
from softctm.slides.region import Region
from softctm.slides.slide import Slide


@dataclass(frozen=True)
class Stretch:
    """A square of fields of one kind: the unit of work, and of what an interruption costs.

    Attributes
    ----------
    kind : str
        What is computed, such as "tissue" or "cells".
    column, row : int
        In units of the stretch's side.
    fields : tuple of (int, int)
        Column and row of those that are looked at, in row-major order.
    """

    kind: str
    column: int
    row: int
    fields: tuple[tuple[int, int], ...]

    @property
    def name(self) -> str:
        """Unique on a slide."""
        return stretch_name(self.kind, self.column, self.row)


@dataclass(frozen=True, eq=False)
class CoreGrid:
    """The cores of fields, which tile a slide.

    Attributes
    ----------
    x : (columns + 1,) int64
        Their left borders, and the right one of the last, in pixels of `mpp`.
    y : (rows + 1,) int64
    mpp : float
    """

    x: NDArray[np.int64]
    y: NDArray[np.int64]
    mpp: float


@dataclass(frozen=True, eq=False)
class SlidePlan:
    """The fields that are looked at.

    Attributes
    ----------
    grid : CoreGrid
        Of the fields in which things are looked for.
    chosen : (rows, columns) bool
        Those of them that are looked at.
    stages : dict of str to tuple of Stretch
        By kind; a stage comes after the one before. Stretches are in row-major order.
    needs : mapping of str to tuple of str
        Names of the stretches that must be stored before a stretch, by its name; one without an entry needs
        none.
    """

    grid: CoreGrid
    chosen: NDArray[np.bool_]
    stages: dict[str, tuple[Stretch, ...]]
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def stretches(self) -> list[Stretch]:
        """All of them, stage by stage."""
        return [stretch for stage in self.stages.values() for stretch in stage]

    @property
    def field_counts(self) -> dict[str, int]:
        """Number of fields by kind."""
        return {
            kind: sum(len(stretch.fields) for stretch in stretches) for kind, stretches in self.stages.items()
        }


def stretch_name(kind: str, column: int, row: int) -> str:
    """See `Stretch.name`."""
    return f"{kind}-{row:04}-{column:04}"


def stretches_of(kind: str, fields: Iterable[tuple[int, int]], side: int) -> Iterator[Stretch]:
    """Put fields into stretches of `side` × `side`."""
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for column, row in sorted(fields, key=lambda field: field[::-1]):
        groups.setdefault((row // side, column // side), []).append((column, row))
    for (row, column), members in sorted(groups.items()):
        yield Stretch(kind, column, row, tuple(members))


def fields_of(chosen: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Column and row of the fields that are looked at, in row-major order."""
    rows, columns = np.nonzero(chosen)
    return list(zip(columns.tolist(), rows.tolist(), strict=True))


def choose_fields(
    grid: CoreGrid, slide: Slide, mask: NDArray[np.bool_], region: Region | None, reach: int
) -> NDArray[np.bool_]:
    """Which fields to look at: those whose core, widened by `reach` pixels, holds tissue or region.

    Parameters
    ----------
    grid : CoreGrid
    slide : Slide
    mask : (H, W) bool
        Where there is tissue, at `MASK_MPP`.
    region : Region, optional
        Replaces the mask.
    reach : int
        So far beyond a field's core its findings can decide which of its neighbor's stay.

    Returns
    -------
    (rows, columns) bool
    """
    return _with_tissue(grid, mask, reach) if region is None else _with_region(grid, region, slide, reach)


def looked_at(plan: SlidePlan, region: Region | None, slide: Slide) -> NDArray[np.float32]:
    """Share of each mask pixel that was looked at, (H, W): of the fields' cores, or of the region.

    Of a pixel at the border, the share of what the slide covers of it.
    """
    width, height = slide.size_at(MASK_MPP)
    if region is not None:
        scale = (MASK_MPP / slide.mpp[0], MASK_MPP / slide.mpp[1])
        return of_covered(region.share_of_pixels(width, height, scale), slide)
    rows, columns = (
        np.searchsorted(borders[1:-1] * plan.grid.mpp, (np.arange(side) + 0.5) * MASK_MPP, side="right")
        for borders, side in ((plan.grid.y, height), (plan.grid.x, width))
    )
    share: NDArray[np.float32] = plan.chosen[np.ix_(rows, columns)].astype(np.float32)
    return share


def of_covered(share: NDArray[np.float32], slide: Slide) -> NDArray[np.float32]:
    """Shares of whole mask pixels (H, W) as shares of what the slide covers of them."""
    covered = covered_mm2(slide) / np.float32(MM2)
    own: NDArray[np.float32] = np.minimum(share / covered.clip(min=1e-6), 1)
    return own


def _with_tissue(grid: CoreGrid, mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    sums[1:, 1:] = mask.cumsum(axis=0).cumsum(axis=1)
    scale = MASK_MPP / grid.mpp
    (y0, y1), (x0, x1) = (
        _covered(borders, length, reach, scale)
        for borders, length in ((grid.y, mask.shape[0]), (grid.x, mask.shape[1]))
    )
    counts = sums[np.ix_(y1, x1)] - sums[np.ix_(y0, x1)] - sums[np.ix_(y1, x0)] + sums[np.ix_(y0, x0)]
    chosen: NDArray[np.bool_] = counts > 0
    return chosen


def _covered(
    borders: NDArray[np.int64], length: int, reach: int, scale: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last + 1 mask pixel that each widened core touches."""
    first = np.floor((borders[:-1] - reach) / scale).astype(np.int64)
    last = np.ceil((borders[1:] + reach) / scale).astype(np.int64)
    return first.clip(0, length), last.clip(0, length)


def _with_region(grid: CoreGrid, region: Region, slide: Slide, reach: int) -> NDArray[np.bool_]:
    chosen = np.zeros((len(grid.y) - 1, len(grid.x) - 1), np.bool_)
    scale_x, scale_y = (grid.mpp / mpp for mpp in slide.mpp)
    x0, y0, x1, y1 = region.bounds
    for row in _range(grid.y, y0 / scale_y - reach, y1 / scale_y + reach):
        for column in _range(grid.x, x0 / scale_x - reach, x1 / scale_x + reach):
            chosen[row, column] = region.touches(
                (grid.x[column] - reach) * scale_x,
                (grid.y[row] - reach) * scale_y,
                (grid.x[column + 1] + reach) * scale_x,
                (grid.y[row + 1] + reach) * scale_y,
            )
    return chosen


def _range(borders: NDArray[np.int64], start: float, stop: float) -> range:
    """The cores that [start, stop] touches."""
    first = int(np.searchsorted(borders[1:], start))
    last = int(np.searchsorted(borders[:-1], stop, side="right"))
    return range(first, last)
