"""The one kind of field in which nuclei are looked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from softctm.inference.image_detector import ImageDetector
from softctm.inference.nuclei_image import field_nuclei
from softctm.jobs.slides.nuclei.stored import StoredField, packed
from softctm.jobs.slides.plan import Stretch
from softctm.jobs.slides.stretches import FieldPlace
from softctm.postprocessing.field_lattice import FieldLattice
from softctm.postprocessing.fields import left_to_neighbor
from softctm.postprocessing.measured_nuclei import measured_nuclei
from softctm.slides.slide import Slide


class NucleiFields:
    """A `FieldKind`: nuclei, outlined and measured field by field.

    Parameters
    ----------
    slide : Slide
    detector : ImageDetector
    lattice : FieldLattice
        Of the slide at `mpp`.
    mpp : float
        µm per pixel that the networks see.
    stride : int, optional
        Of the tokens that embeddings are made of, if they are.
    """

    def __init__(
        self, slide: Slide, detector: ImageDetector, lattice: FieldLattice, mpp: float, stride: int | None
    ) -> None:
        self._slide, self._detector, self._lattice, self._mpp = slide, detector, lattice, mpp
        self._stride = stride

    def read(self, field: FieldPlace) -> NDArray[np.uint8]:
        """See `FieldKind.read`; a field ends where the slide does."""
        left, top, right, bottom = self._lattice.field(*field).box
        return self._slide.read(left, top, right - left, bottom - top, self._mpp)

    def begin(self, stretch: Stretch) -> _Nuclei:
        """See `FieldKind.begin`."""
        return _Nuclei(self._detector, self._lattice, self._mpp, self._stride)


class _Nuclei:
    """The nuclei that a stretch's fields see and do not leave to a neighbor."""

    def __init__(
        self, detector: ImageDetector, lattice: FieldLattice, mpp: float, stride: int | None
    ) -> None:
        self._detector, self._lattice, self._mpp, self._stride = detector, lattice, mpp, stride
        self._fields: list[StoredField] = []

    def look(self, field: FieldPlace, image: NDArray[np.uint8]) -> StoredField:
        """What the field keeps."""
        found, vectors = field_nuclei(self._detector, self._lattice.field(*field), image, self._stride)
        stays = ~left_to_neighbor(found)
        table, vectors = found.table.where(stays), None if vectors is None else vectors[stays]
        row = np.zeros(int(found.instances.max(initial=0)) + 1, np.min_scalar_type(len(table)))
        row[table.id] = np.arange(len(table)) + 1
        rows = row[found.instances]
        table = replace(table, id=np.arange(1, len(table) + 1, dtype=np.int32))
        nuclei = measured_nuclei(image, rows, table, mpp=self._mpp)
        return StoredField(rows, replace(nuclei, embeddings=vectors))

    def add(self, field: FieldPlace, found: StoredField) -> None:
        self._fields.append(found)

    def content(self) -> bytes:
        return packed(self._fields)
