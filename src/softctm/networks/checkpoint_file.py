"""Other programs' checkpoints, read without executing anything in them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from softctm.errors import ModelError


def load_tensors(path: Path) -> Mapping[str, Any]:
    """What a file of `torch.save`, or a safetensors file, holds: tensors and plain values.

    Raises
    ------
    ModelError
        If it cannot be read, or holds anything else; nothing in it is executed.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path}: cannot be read as safetensors ({error})") from None
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        text = str(error).split("WeightsUnpickler error: ")[-1].strip()
        if text.startswith("Unsupported operand"):  # bytes that torch.save never writes
            raise ModelError(
                f"{path}: is not a PyTorch checkpoint; give a file of `torch.save`, as .pth or .pt"
            ) from None
        reason = text.split("GLOBAL ")[-1].split(" was not")[0].splitlines()[0][:80]
        raise ModelError(
            f"{path}: refused, because it holds more than tensors and plain values ({reason}); nothing in "
            "it was executed"
        ) from None
    except FileNotFoundError:
        raise ModelError(f"{path}: is not there") from None
    except Exception as error:  # a damaged file makes the reader fail in many ways
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise ModelError(
            f"{path}: cannot be read as a PyTorch checkpoint ({reason}); it may be incomplete, "
            "download it again"
        ) from None
    if not isinstance(document, Mapping):
        raise ModelError(f"{path}: not a checkpoint, but a {type(document).__name__}")
    return document
