"""A vision transformer's pretrained weights, in the layouts that DINO and SAM publish."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from softctm.errors import ModelError
from softctm.networks.checkpoint_file import load_tensors
from softctm.networks.vit import VisionTransformer

_PREFIXES = ("module.", "backbone.", "image_encoder.", "encoder.")
"""What the published programs put before the names."""
_HOLDERS = ("teacher", "state_dict", "model", "model_state_dict")
"""Entries of a checkpoint that hold the weights; of DINO's two networks the teacher is used."""


def load_vit(encoder: VisionTransformer, path: Path) -> None:
    """Fill an encoder, in place: from ViT-256's file in DINO's layout, from SAM's, or from bare weights.

    The head over the class token, which pretraining does not have, stays as it is.

    Raises
    ------
    ModelError
        If the file cannot be read, or lacks a weight or has one of another shape.
    """
    document: Mapping[str, Any] = load_tensors(path)
    for holder in _HOLDERS:
        if isinstance(document.get(holder), Mapping):
            document = document[holder]
            break
    weights = {_bare(name): value for name, value in document.items() if isinstance(value, Tensor)}
    own = {name: value for name, value in encoder.state_dict().items() if not name.startswith("head.")}
    missing = sorted(own.keys() - weights.keys())
    if missing:
        raise ModelError(f"{path}: not weights of this encoder; lacks {', '.join(missing[:3])}")
    for name, value in own.items():
        if weights[name].shape != value.shape:
            raise ModelError(
                f"{path}: {name} is {tuple(weights[name].shape)} where {tuple(value.shape)} is wanted"
            )
    encoder.load_state_dict({name: weights[name].float() for name in own}, strict=False)


def _bare(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name
