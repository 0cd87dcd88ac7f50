"""A scene as a scanner sees it at some resolution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from softctm.phantom.drawn_nuclei import Nuclei
from softctm.phantom.noise import Float, grid
from softctm.phantom.scene import Regions, Scene

OPTICS = 0.22
"""Standard deviation of the microscope's blur, µm."""

RIM = 0.45
"""Half the width of the nuclear membrane, µm."""


def render(
    scene: Scene, rng: np.random.Generator, start: tuple[float, float], size: int, mpp: float
) -> NDArray[np.uint8]:
    """RGB (size, size, 3) of the square that begins at `start` (x, y µm), at `mpp` µm per pixel."""
    x, y = grid(start[0], size, mpp), grid(start[1], size, mpp)
    regions = scene.regions(x, y)
    grain = [noise.on_grid(x, y) for noise in scene.grain]
    hematoxylin, eosin = _ground(regions, scene.fibres(x, y), grain)
    _paint_nuclei(hematoxylin, eosin, scene.nuclei, 0.7 * grain[0] + 0.7 * grain[1], x, y)
    image = scene.patient.stain.colors(hematoxylin, eosin)
    # Averaging over the pixel is done where the fields are read; what is left of the blur is the optics.
    image = ndimage.gaussian_filter(image, (OPTICS / mpp, OPTICS / mpp, 0))
    image += rng.normal(0, 1.0, (size, size, 1)).astype(np.float32)
    image += rng.normal(0, 0.5, image.shape).astype(np.float32)
    return np.asarray(np.clip(np.rint(image), 0, 255), dtype=np.uint8)


def _ground(regions: Regions, fibres: Float, grain: list[Float]) -> tuple[Float, Float]:
    """Amounts of hematoxylin and eosin before nuclei are painted."""
    fine, small, middle, large = grain
    strand = 1 / (1 + np.exp(-2.0 * (fibres + 0.8)))
    stroma_eosin = strand * (0.25 + 0.05 * fibres + 0.04 * large) + 0.02 * small + 0.02 * fine
    stroma_hematoxylin = 0.03 + 0.02 * strand + 0.015 * middle
    texture = 0.035 * fine + 0.035 * small + 0.03 * middle
    cytoplasm_eosin = 0.19 + 0.04 * large + texture
    cytoplasm_hematoxylin = 0.11 + 0.02 * large + 0.5 * texture
    tissue, nest = regions.tissue, regions.nest
    eosin = tissue * (nest * cytoplasm_eosin + (1 - nest) * stroma_eosin)
    hematoxylin = tissue * (nest * cytoplasm_hematoxylin + (1 - nest) * stroma_hematoxylin)
    return np.maximum(hematoxylin, 0), np.maximum(eosin, 0)


def _paint_nuclei(
    hematoxylin: Float, eosin: Float, nuclei: Nuclei, chromatin: Float, x: Float, y: Float
) -> None:
    """Lay every nucleus that touches the grid over the ground, in place."""
    mpp = float(x[1] - x[0])
    reach = 1.2 * nuclei.axes[:, 0] + 3.0
    first = np.floor((nuclei.center - reach[:, None] - [x[0], y[0]]) / mpp).astype(int)
    last = np.ceil((nuclei.center + reach[:, None] - [x[0], y[0]]) / mpp).astype(int) + 1
    seen = np.flatnonzero((last > 0).all(axis=1) & (first < [len(x), len(y)]).all(axis=1))
    for index in seen.tolist():
        (left, top), (right, bottom) = first[index].clip(0), last[index]
        window = np.s_[top:bottom, left:right]
        dx = x[left:right][None, :] - nuclei.center[index, 0]
        dy = y[top:bottom][:, None] - nuclei.center[index, 1]
        depth = _depth(dx, dy, nuclei, index)
        cover = np.clip(depth / max(mpp, 0.5) + 0.5, 0, 1)
        # Cytoplasm is paler next to the nucleus of a tumor cell.
        halo = (0.45 * nuclei.tumor[index]) * np.exp(-(((depth + 1.3) / 1.1) ** 2))
        eosin[window] *= 1 - halo
        hematoxylin[window] *= 1 - halo
        amount = _chromatin(depth, chromatin[window], dx, dy, nuclei, index, mpp)
        hematoxylin[window] += cover * (amount - hematoxylin[window])
        eosin[window] += cover * (0.17 - eosin[window])


def _depth(dx: Float, dy: Float, nuclei: Nuclei, index: int) -> Float:
    """How far inside the nucleus each pixel lies, about in µm; negative outside."""
    cos, sin = np.cos(nuclei.angle[index]), np.sin(nuclei.angle[index])
    long, short = nuclei.axes[index]
    u, v = (dx * cos + dy * sin) / long, (dy * cos - dx * sin) / short
    radius = np.sqrt(u * u + v * v)
    theta = np.arctan2(v, u)
    outline = 1.0 + sum(
        amplitude * np.cos(order * theta + phase)
        for order, (amplitude, phase) in enumerate(nuclei.lobes[index], start=2)
    )
    # One unit of the stretched radius is worth less across than along.
    scale = np.hypot(u * long, v * short) / np.maximum(radius, 1e-6)
    return np.asarray((outline - radius) * np.where(radius > 1e-6, scale, short), dtype=np.float32)


def _chromatin(
    depth: Float, texture: Float, dx: Float, dy: Float, nuclei: Nuclei, index: int, mpp: float
) -> Float:
    """Amount of hematoxylin inside one nucleus: rim, clumps and, in pale nuclei, nucleoli."""
    vesicular, density = nuclei.vesicular[index], nuclei.density[index]
    width = max(RIM, mpp / 2)
    rim = np.exp(-(((depth - RIM) / width) ** 2)) * (RIM / width)
    amount = density * (1 + (0.10 + 0.22 * vesicular) * texture + 0.45 * vesicular * rim)
    if vesicular > 0.35 and nuclei.tumor[index]:
        phase, distance = nuclei.lobes[index, 0, 1], 0.35 * nuclei.axes[index, 1]
        spot = np.hypot(dx - distance * np.cos(phase), dy - distance * np.sin(phase))
        amount = amount + 0.35 * np.clip((0.95 - spot) / max(mpp, 0.5) + 0.5, 0, 1)
    return np.asarray(amount, dtype=np.float32)
