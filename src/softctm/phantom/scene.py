"""A synthetic piece of tissue, in µm: where cancer, stroma, lumina and glass lie, and every nucleus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softctm.pair import PATCH_SIZE, TISSUE_MPP
from softctm.phantom.drawn_nuclei import (
    Nuclei,
    crowd,
    draw_lymphocytes,
    draw_spindles,
    draw_tumor,
    scatter,
    without_overlap,
)
from softctm.phantom.noise import FIELD, Float, Noise, Streaks, grid
from softctm.phantom.stain import Stain


@dataclass(frozen=True, eq=False)
class Regions:
    """Coverage 0 … 1 of each compartment on one pixel grid, (H, W) float32 each.

    `cancer` is the area that a pathologist would outline, with its septa; `nest` its epithelium alone.
    """

    glass: Float
    lumen: Float
    cancer: Float
    nest: Float
    inflammation: Float

    @property
    def tissue(self) -> Float:
        """Where there is something stained."""
        return (1 - self.glass) * (1 - self.lumen)


@dataclass(frozen=True)
class Patient:
    """What the scenes of one patient have in common."""

    stain: Stain
    tumor_radius: float
    vesicular: float
    septa: float
    lumina: float
    inflamed: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Patient:
        """A patient: staining, size and look of the tumor's nuclei, its architecture."""
        return cls(
            stain=Stain.draw(rng),
            tumor_radius=float(rng.uniform(4.2, 5.2)),
            vesicular=float(rng.uniform(0.25, 0.9)),
            septa=float(rng.uniform(0.12, 0.24)),
            lumina=float(rng.uniform(1.5, 2.4)),
            inflamed=float(rng.uniform(0.4, 1.1)),
        )


class Scene:
    """One field of `FIELD` × `FIELD` µm; everything follows from the generator and the patient."""

    def __init__(self, rng: np.random.Generator, patient: Patient) -> None:
        self.patient = patient
        self._front = _Edge(rng, wobble=(45.0, 90.0))
        self._rim = _Edge(rng, wobble=(12.0, 60.0), at=float(rng.uniform(300, 520)))
        self._septa, self._lumina, self._inflammation, self._ragged = (
            Noise(rng, FIELD, wavelength) for wavelength in (55.0, 26.0, 60.0, 9.0)
        )
        self.grain = [Noise(rng, FIELD, wavelength) for wavelength in (0.6, 1.3, 4.0, 14.0)]
        self._fibre_angle = float(rng.uniform(0, np.pi))
        self._wave = Noise(rng, FIELD, 40.0)
        self._fibres = [Streaks(rng, FIELD, *size) for size in ((30.0, 3.6), (16.0, 1.6), (9.0, 0.8))]
        self.nuclei = self._place_nuclei(rng)

    def regions(self, x: Float, y: Float) -> Regions:
        """The compartments on the grid with pixel centers `x` (W,) and `y` (H,), µm."""
        ragged = self._ragged.on_grid(x, y)
        glass = _soft((self._rim.distance(x, y) + 3 * ragged) / 1.5)
        cancer_distance = -self._front.distance(x, y)
        septum = np.abs(self._septa.on_grid(x, y)) + 0.03 * ragged - self.patient.septa
        nest = _soft(septum * 30) * _soft((cancer_distance + 3 * ragged) / 2)
        lumen = _soft((self._lumina.on_grid(x, y) + 0.06 * ragged - self.patient.lumina) * 12) * _soft(
            (cancer_distance - 8) / 4
        )
        return Regions(
            glass=glass,
            lumen=lumen,
            cancer=_soft(cancer_distance / 0.5) * (1 - glass),
            nest=nest,
            inflammation=_soft((self._inflammation.on_grid(x, y) - 1.2 + 0.5 * self.patient.inflamed) * 4),
        )

    def fibres(self, x: Float, y: Float) -> Float:
        """Collagen texture on the grid, mean 0, standard deviation about 1."""
        along, across = self._fibre_coordinates(x, y)
        coarse, middle, fine = (streaks.at(along, across) for streaks in self._fibres)
        return np.asarray(0.7 * coarse + 0.55 * middle + 0.4 * fine)

    def _fibre_coordinates(self, x: Float, y: Float) -> tuple[Float, Float]:
        cos, sin = np.float32(np.cos(self._fibre_angle)), np.float32(np.sin(self._fibre_angle))
        dx, dy = x[None, :] - FIELD / 2, y[:, None] - FIELD / 2
        along = dx * cos + dy * sin
        across = dy * cos - dx * sin + 9 * self._wave.on_grid(x, y)
        return along.astype(np.float32), across.astype(np.float32)

    def _place_nuclei(self, rng: np.random.Generator) -> Nuclei:
        """Tumor nuclei crowd the nests; spindles follow the fibres; lymphocytes gather, some stray."""
        pixels = grid(0, PATCH_SIZE, TISSUE_MPP)
        regions = self.regions(pixels, pixels)
        stroma = regions.tissue * (1 - regions.nest)
        epithelium = regions.tissue * regions.nest
        radius = self.patient.tumor_radius
        drawn = [
            draw_tumor(rng, crowd(rng, epithelium, 2.45 * radius), radius, self.patient.vesicular),
            draw_lymphocytes(rng, scatter(rng, stroma * regions.inflammation, 1 / 75)),
            draw_lymphocytes(rng, scatter(rng, stroma, 1 / 1500)),
            draw_lymphocytes(rng, scatter(rng, epithelium, 1 / 3500)),
            draw_spindles(rng, scatter(rng, stroma, 1 / 330), self._directions()),
        ]
        return without_overlap(Nuclei.join(drawn))

    def _directions(self) -> NDArray[np.float64]:
        """Fibre direction on the tissue grid, radians, (1024, 1024)."""
        pixels = grid(0, PATCH_SIZE, TISSUE_MPP)
        _, across = self._fibre_coordinates(pixels, pixels)
        slope_y, slope_x = np.gradient(across)
        # Fibres follow the lines of equal `across`: at right angles to its gradient.
        return np.asarray(np.arctan2(-slope_x, slope_y), dtype=np.float64)


class _Edge:
    """A wavy line through the field; `distance` is positive on one side, about in µm."""

    def __init__(
        self, rng: np.random.Generator, wobble: tuple[float, float], at: float | None = None
    ) -> None:
        direction = rng.uniform(0, 2 * np.pi)
        self.normal = np.float32(np.cos(direction)), np.float32(np.sin(direction))
        self.offset = np.float32(rng.uniform(-120, 120) if at is None else at)
        self.amplitude = wobble[0]
        self.waves = Noise(rng, FIELD, wobble[1])

    def distance(self, x: Float, y: Float) -> Float:
        straight = (x[None, :] - FIELD / 2) * self.normal[0] + (y[:, None] - FIELD / 2) * self.normal[1]
        return np.asarray(
            straight - self.offset + self.amplitude * self.waves.on_grid(x, y), dtype=np.float32
        )


def _soft(value: Float) -> Float:
    """A step that rises from 0 to 1 between −1 and 1, without a kink."""
    t = np.clip(0.5 + 0.5 * value, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)
