"""From amounts of hematoxylin and eosin to colors, by the law of Beer and Lambert."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WHITE = np.array([243.0, 241.0, 243.0], dtype=np.float32)
"""What the scanner gives for bare glass."""


@dataclass(frozen=True, eq=False)
class Stain:
    """How one laboratory's staining looks.

    Attributes
    ----------
    hematoxylin, eosin : (3,) float32
        Optical density (base 10) in R, G, B for one unit of the dye; unit length.
    strength : tuple of float
        Factors on the amounts of hematoxylin and of eosin.
    """

    hematoxylin: NDArray[np.float32]
    eosin: NDArray[np.float32]
    strength: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Stain:
        """A plausible staining: both dyes vary a little in hue and more in strength."""
        hematoxylin = np.array([0.60, 0.67, 0.43]) + rng.normal(0, 0.02, 3)
        eosin = np.array([0.17, 0.88, 0.45]) + rng.normal(0, [0.03, 0.02, 0.04])
        return cls(
            (hematoxylin / np.linalg.norm(hematoxylin)).astype(np.float32),
            (eosin / np.linalg.norm(eosin)).astype(np.float32),
            (float(rng.uniform(0.9, 1.15)), float(rng.uniform(0.85, 1.15))),
        )

    def colors(self, hematoxylin: NDArray[np.float32], eosin: NDArray[np.float32]) -> NDArray[np.float32]:
        """RGB (H, W, 3), 0 … 255, of the two dyes' amounts (H, W): I = I₀ · 10^(−Σ amount · density)."""
        amounts = np.stack([hematoxylin * self.strength[0], eosin * self.strength[1]], axis=-1)
        density = np.maximum(amounts, 0) @ np.stack([self.hematoxylin, self.eosin])
        return np.asarray(WHITE * np.exp(np.float32(-np.log(10)) * density), dtype=np.float32)
