"""The reference's CellViT networks: their weights made again, their input, and checkpoints of them."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

REFERENCES = {"256": ("cellvit_256", "CellViT256"), "SAM-B": ("cellvit_sam_b", "CellViTSAM")}
"""Encoder → the reference's files, and the checkpoint's kind."""

CONFIG = {
    "data.num_nuclei_classes": 6,
    "data.num_tissue_classes": 19,
    "model.regression_loss": False,
    "transformations.normalize.mean": [0.5, 0.5, 0.5],
    "transformations.normalize.std": [0.5, 0.5, 0.5],
}


def drawn(name: str, shape: list[int]) -> torch.Tensor:
    """The weights of one entry, by the recipe in the reference's README."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    z = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    leaf = name.rsplit(".", 1)[1]
    if leaf == "running_var":
        z = 0.5 + np.abs(z)
    elif leaf == "running_mean":
        z = np.float32(0.1) * z
    elif leaf in ("cls_token", "pos_embed") or leaf.startswith("rel_pos_"):
        z = np.float32(0.2) * z
    elif len(shape) == 1:
        z = 1 + np.float32(0.1) * z if leaf == "weight" else np.float32(0.02) * z
    else:
        z = z / np.float32(np.sqrt(np.prod(shape[1:])))
    return torch.from_numpy(z)


def weights(folder: Path, encoder: str) -> dict[str, torch.Tensor]:
    """The reference's state dict."""
    names = json.loads((folder / f"{REFERENCES[encoder][0]}_names.json").read_text())
    return {name: drawn(name, shape) for name, shape in names.items()}


def reference_image(folder: Path) -> torch.Tensor:
    """(1, 3, 256, 256) float32 in 0 … 1."""
    pixels = np.array(Image.open(folder / "input_256.png").convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def checkpoint(folder: Path, encoder: str, **changes: Any) -> dict[str, Any]:
    """What `torch.save` holds of a published network; `changes` replace its top-level entries."""
    document = {
        "arch": REFERENCES[encoder][1],
        "model_state_dict": weights(folder, encoder),
        "config": dict(CONFIG) | ({"model.backbone": encoder} if encoder != "256" else {}),
    }
    return document | changes
