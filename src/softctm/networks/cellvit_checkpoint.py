"""The published CellViT checkpoints: files of `torch.save`, read without executing anything in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softctm.errors import ModelError
from softctm.networks.cellvit import CellViT, CellViTSpec
from softctm.networks.checkpoint_file import load_tensors
from softctm.networks.vit import ENCODERS
from softctm.nuclei_table import PANNUKE_TYPES

KINDS = ("CellViT", "CellViT256", "CellViTSAM")
_PANNUKE = tuple(kind.name for kind in PANNUKE_TYPES)
_ENCODER_OF = {encoder.width: name for name, encoder in ENCODERS.items()}
_MISSING = object()


@dataclass(frozen=True)
class Checkpoint:
    """A network, and what its configuration says of its use.

    Attributes
    ----------
    network : CellViT
        In evaluation mode.
    kind : str
        "CellViT-256", "CellViT-SAM-H", …
    mean, std : (float, float, float)
        By which RGB / 255 is normalized.
    types : tuple of str
        Names of the types, background first.
    tissues : tuple of str
        Names of the tissues; empty where the configuration has none.
    """

    network: CellViT
    kind: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    types: tuple[str, ...]
    tissues: tuple[str, ...]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    ModelError
        If the file cannot be read or holds more than tensors and plain values; if it is of another kind; if
        its weights are not those of the network that it is said to be.
    """
    document = load_tensors(path)
    arch = document.get("arch")
    if arch not in KINDS:
        raise ModelError(
            f"{path}: the checkpoint is of kind {arch!r}, which cannot be imported; "
            f"choose one of kind {', '.join(KINDS)}"
        )
    config, state = document.get("config"), document.get("model_state_dict")
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{path}: has no model_state_dict of tensors; not a CellViT checkpoint")
    config = config if isinstance(config, Mapping) else {}
    if _setting(config, "model.regression_loss", False):
        raise ModelError(f"{path}: trained with a regression loss, whose extra outputs cannot be imported")
    spec = _spec(path, arch, config, state)
    with torch.device("meta"):
        network = CellViT(spec)
    _fill(path, network, state)
    types = _names(config, "nuclei_types", spec.types)
    if not types:
        if spec.types != len(_PANNUKE):
            raise ModelError(
                f"{path}: has {spec.types} types, background included, and its configuration names none "
                f"(dataset_config, nuclei_types); without names {len(_PANNUKE)} are taken as PanNuke's"
            )
        types = _PANNUKE
    return Checkpoint(
        network.eval(),
        f"CellViT-{spec.encoder}",
        _triple(path, config, "mean"),
        _triple(path, config, "std"),
        types,
        _names(config, "tissue_types", spec.tissues),
    )


def _setting(config: Mapping[str, Any], name: str, default: Any = _MISSING) -> Any:
    """A value by its dotted name, from a flat mapping or from nested ones."""
    if name in config:
        return config[name]
    first, _, rest = name.partition(".")
    if rest and isinstance(config.get(first), Mapping):
        return _setting(config[first], rest, default)
    return default


def _spec(path: Path, arch: str, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> CellViTSpec:
    """What the weights themselves say; where the configuration says something else, an error."""
    tissue_head = "classifier_head.weight" if arch == "CellViTSAM" else "encoder.head.weight"
    wanted = (
        "encoder.patch_embed.proj.weight",
        "nuclei_type_maps_decoder.decoder0_header.2.weight",
        tissue_head,
    )
    missing = [name for name in wanted if name not in state]
    if missing:
        raise ModelError(f"{path}: the weights lack {missing[0]}; not a {arch} checkpoint")
    width, types, tissues = (len(state[name]) for name in wanted)
    encoder = _ENCODER_OF.get(width)
    if encoder is None or ENCODERS[encoder].windowed != (arch == "CellViTSAM"):
        raise ModelError(
            f"{path}: an encoder {width} wide in a checkpoint of kind {arch}; known are "
            + ", ".join(f"{name} ({spec.width})" for name, spec in ENCODERS.items())
        )
    backbone = _setting(config, "model.backbone", None)
    if arch == "CellViTSAM" and backbone is not None and str(backbone).upper() != encoder:
        raise ModelError(f"{path}: model.backbone is {backbone}, but the weights are those of {encoder}")
    for name, found in (("data.num_nuclei_classes", types), ("data.num_tissue_classes", tissues)):
        said = _setting(config, name, found)
        if said != found:
            raise ModelError(f"{path}: {name} is {said}, but the weights have {found}")
    return CellViTSpec(encoder, types, tissues)


def _fill(path: Path, network: CellViT, state: Mapping[str, Tensor]) -> None:
    own = network.state_dict()
    lacking, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if lacking or extra:
        raise ModelError(
            f"{path}: other weights than CellViT-{network.spec.encoder}'s; lacks {lacking[:3] or 'nothing'}, "
            f"adds {extra[:3] or 'nothing'}"
        )
    for name, value in own.items():
        if value.shape != state[name].shape:
            raise ModelError(
                f"{path}: {name} is {tuple(state[name].shape)} where {tuple(value.shape)} is wanted"
            )
    weights = {
        name: value.float() if value.dtype.is_floating_point else value for name, value in state.items()
    }
    network.load_state_dict(weights, assign=True)


def _names(config: Mapping[str, Any], kind: str, count: int) -> tuple[str, ...]:
    """Names by number, from the data set's description; empty where it has none that fit."""
    found = _setting(config, f"dataset_config.{kind}", None)
    prefix = f"dataset_config.{kind}."
    if found is None:
        found = {key[len(prefix) :]: value for key, value in config.items() if str(key).startswith(prefix)}
    if not isinstance(found, Mapping):
        return ()
    by_number = {number: str(name) for name, number in found.items()}
    if sorted(by_number, key=str) != sorted(range(count), key=str):
        return ()
    return tuple(by_number[number].lower().replace(" ", "_") for number in range(count))


def _triple(path: Path, config: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    values = _setting(config, f"transformations.normalize.{name}", (0.5, 0.5, 0.5))
    try:
        red, green, blue = (float(value) for value in values)
    except (TypeError, ValueError):
        raise ModelError(
            f"{path}: transformations.normalize.{name} must be three numbers, not {values!r}"
        ) from None
    return red, green, blue
