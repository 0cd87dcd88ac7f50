"""From the fields' nuclei to the slide's: joined, numbered, the region applied, field by field.

The rule is that of `softctm.postprocessing.fields`. A nucleus that lost pixels to one of an earlier field is
measured again, as it is in the joined map.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from softctm.box import Box
from softctm.inference.nuclei_image import as_in
from softctm.jobs.slides.nuclei.stored import StoredNuclei
from softctm.jobs.slides.stretches import FieldPlace
from softctm.postprocessing.field_lattice import FieldLattice
from softctm.postprocessing.fields import FieldJoiner, FieldNuclei
from softctm.postprocessing.measured_nuclei import MeasuredNuclei, measured_nuclei
from softctm.slides.region import Region
from softctm.slides.slide import Slide

_UNLISTED = np.iinfo(np.uint32).max
"""Of pixels of a nucleus that is not reported while a map is put together: they are no one else's."""


class SlideNuclei:
    """The nuclei of a slide whose fields are all stored.

    In memory are a few fields, the strips of one row of them, and a byte a nucleus.

    Parameters
    ----------
    stored : StoredNuclei
    lattice : FieldLattice
        Of the slide at `mpp`.
    mpp : float
        µm per pixel that the networks see.
    slide : Slide
    region : Region, optional
        Nuclei whose centers lie outside of it are left out, after fields are joined.
    """

    def __init__(
        self, stored: StoredNuclei, lattice: FieldLattice, mpp: float, slide: Slide, region: Region | None
    ) -> None:
        self._stored, self._lattice, self._mpp = stored, lattice, mpp
        self._slide, self._region = slide, region
        self.scale = (mpp / slide.mpp[0], mpp / slide.mpp[1])
        joiner = FieldJoiner()
        for place in stored.places:
            joiner.add(FieldNuclei(lattice.field(*place), stored.rows(place), stored.table(place)))
        self._kept = dict(zip(stored.places, joiner.finish(), strict=True))
        self._first_id, count = {}, 1
        for place, kept in self._kept.items():
            self._first_id[place] = count
            count += int(kept.sum())
        self._listed = dict(self._kept)

    def __iter__(self) -> Iterator[tuple[FieldPlace, MeasuredNuclei]]:
        """The nuclei a field at a time, in pixels of `mpp` from the slide's origin.

        Fields come in row-major order; those without nuclei are left out. Ids are the label map's, rising.
        """
        for place, kept in self._kept.items():
            nuclei, listed = self._as_joined(place), kept.copy()
            box = self._lattice.field(*place).box
            there = np.zeros(len(kept), np.bool_)
            there[nuclei.table.id - 1] = True
            listed &= there
            if self._region is not None:
                x = (nuclei.table.x + 0.5 + box.left) * self.scale[0]
                y = (nuclei.table.y + 0.5 + box.top) * self.scale[1]
                listed[nuclei.table.id - 1] &= self._region.contains(x, y)
            self._listed[place] = listed
            nuclei = nuclei.where(listed[nuclei.table.id - 1])
            if len(nuclei):
                ids = self._ids(place)[nuclei.table.id]
                yield place, nuclei.moved(box.left, box.top, ids.astype(np.int32))

    def label_window(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint32]:
        """A window (1, height, width) of the label map, once the nuclei have been gone through."""
        window, box = np.zeros((height, width), np.uint32), Box(x, y, x + width, y + height)
        for place in self._lattice.showing(box):
            if place in self._stored:
                rows, at = self._part(place, box)
                ids = np.where(np.append(False, self._listed[place]), self._ids(place), _UNLISTED)
                ids[~np.append(False, self._kept[place])] = 0
                target = window[at]
                np.copyto(target, ids.astype(np.uint32)[rows], where=target == 0)
        window[window == _UNLISTED] = 0
        return window[None]

    def _ids(self, place: FieldPlace) -> NDArray[np.int64]:
        """(N + 1,) Id of each row of a field's table, from 1; of no meaning for those that do not stay."""
        return np.append(0, self._first_id[place] - 1 + np.cumsum(self._kept[place]))

    def _as_joined(self, place: FieldPlace) -> MeasuredNuclei:
        """A field's nuclei that stay, as they are in the joined map."""
        nuclei, kept, rows = self._stored.nuclei(place), self._kept[place], self._stored.rows(place)
        field = self._lattice.field(*place)
        claimed = np.zeros(rows.shape, np.bool_)
        for other in self._lattice.showing(field.box):
            if other == place:
                break
            if other in self._stored:
                part, at = self._part(other, field.box)
                claimed[at] |= np.append(False, self._kept[other])[part]
        lost = claimed & np.append(False, kept)[rows]
        if not lost.any():
            return nuclei.where(kept)
        is_changed = np.zeros(len(kept) + 1, np.bool_)
        is_changed[rows[lost]] = True
        joined = np.where(is_changed[rows] & ~lost, rows, 0)
        is_changed = is_changed[1:]
        image = self._seen(field.box, nuclei.table.box[is_changed])
        changed = measured_nuclei(image, joined, as_in(joined, nuclei.table), mpp=self._mpp)
        if nuclei.embeddings is not None:
            changed = replace(changed, embeddings=nuclei.embeddings[changed.table.id - 1])
        both = MeasuredNuclei.concatenated([nuclei.where(kept & ~is_changed), changed])
        return both.where(np.argsort(both.table.id))

    def _part(self, place: FieldPlace, box: Box) -> tuple[NDArray[np.unsignedinteger], tuple[slice, slice]]:
        """What a field shows of a rectangle, and where that lies in it."""
        own = self._lattice.field(*place).box
        left, right = max(own.left, box.left), min(own.right, box.right)
        top, bottom = max(own.top, box.top), min(own.bottom, box.bottom)
        rows = self._stored.rows(place)[top - own.top : bottom - own.top, left - own.left : right - own.left]
        return rows, (slice(top - box.top, bottom - box.top), slice(left - box.left, right - box.left))

    def _seen(self, field: Box, boxes: NDArray[np.int32]) -> NDArray[np.uint8]:
        """A field's image, read where some nuclei lie only."""
        image = np.zeros((field.bottom - field.top, field.right - field.left, 3), np.uint8)
        for top, left, bottom, right in boxes.tolist():
            image[top:bottom, left:right] = self._slide.read(
                field.left + left, field.top + top, right - left, bottom - top, self._mpp
            )
        return image
