"""Drawn images of nuclei to train on, and data sets of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from softctm.training.nuclei.data import TrainingImage


def disks(seed: int = 0, side: int = 96, count: int = 9) -> NDArray[np.int32]:
    """Round nuclei on a grid, some of which touch."""
    rng = np.random.default_rng(seed)
    down, right = np.indices((side, side))
    instances = np.zeros((side, side), np.int32)
    for number in range(count):
        row, column = (side // 3 * np.array(divmod(number, 3)) + side // 6 + rng.integers(-6, 7, 2)).tolist()
        instances[(down - row) ** 2 + (right - column) ** 2 < rng.integers(8, 13) ** 2] = number + 1
    return instances


def drawn(name: str, seed: int, typed: bool = True, tissue: int = -1) -> TrainingImage:
    """An image of those nuclei: dark on light, even numbers redder."""
    instances = disks(seed)
    type_of = np.arange(10) % 2 + 1
    type_of[0] = 0
    color = np.array([[230, 220, 230], [90, 60, 150], [160, 60, 90]], np.float64)
    noise = np.random.default_rng(seed).normal(0, 6, (*instances.shape, 3))
    pixels = (color[type_of[instances]] + noise).clip(0, 255).astype(np.uint8)
    known = type_of if typed else np.where(type_of > 0, -1, 0)
    return TrainingImage(name, pixels, instances, known, tissue)


def write_dataset(folder: Path, images: list[TrainingImage], typed: bool) -> None:
    """In the layout of label images and tables."""
    for part in ("images", "instances", *(["types"] if typed else [])):
        (folder / part).mkdir(parents=True)
    for image in images:
        Image.fromarray(image.image).save(folder / "images" / f"{image.name}.png")
        Image.fromarray(image.instances.astype(np.uint16)).save(folder / "instances" / f"{image.name}.png")
        if typed:
            rows = [
                f"{i},{'ab'[k - 1]}" for i, k in enumerate(image.type_of) if k > 0 and i in image.instances
            ]
            (folder / "types" / f"{image.name}.csv").write_text("id,type\n" + "\n".join(rows) + "\n")
