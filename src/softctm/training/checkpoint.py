"""A training run's state on disk, from which it resumes bit for bit."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from softctm.errors import OutputError, TrainingError

_DAMAGED = (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, pickle.UnpicklingError)
"""What PyTorch raises over a truncated, empty or foreign file."""


def resume(
    folder: Path,
    network: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: dict[str, Any],
    device: torch.device,
) -> tuple[int, list[dict[str, float]], list[float]]:
    """Fill network, average and optimizer from the folder's checkpoint, if it has one.

    Returns
    -------
    step, rows, losses
        Steps done, the metrics of each epoch, the losses of the epoch that is under way.

    Raises
    ------
    TrainingError
        If the checkpoint is damaged, or of another `identity`.
    """
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0, [], []
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        stored = dict(state["identity"])
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        pickle.UnpicklingError,
    ) as error:
        raise _unreadable(path, error) from None
    stored.setdefault("data", identity["data"])  # older checkpoints do not say
    stored.setdefault("tissue_factor", 1.0)
    if stored != identity:
        names = sorted(stored.keys() | identity.keys())
        different = [name for name in names if stored.get(name) != identity.get(name)]
        raise TrainingError(
            f"{path}: from a run with another {', '.join(different)}; choose another --run folder"
        )
    try:
        network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
    except _DAMAGED as error:
        raise _unreadable(path, error) from None
    return int(state["step"]), list(state["rows"]), list(state["losses"])


def save_checkpoint(
    folder: Path,
    network: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: dict[str, Any],
    step: int,
    rows: list[dict[str, float]],
    losses: list[float],
) -> None:
    """Write the checkpoint beside the old one, then let it take the old one's place.

    Raises
    ------
    OutputError
        If it cannot be written; the old one stays.
    """
    state = {
        "identity": identity,
        "step": step,
        "rows": rows,
        "losses": losses,
        "network": network.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    partial = folder / "checkpoint.partial.pt"
    try:
        torch.save(state, partial)
        partial.replace(folder / "checkpoint.pt")
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise OutputError(
            f"{folder / 'checkpoint.pt'} cannot be written ({reason}); make room, then run the command again"
        ) from None


def _unreadable(path: Path, error: Exception) -> TrainingError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return TrainingError(f"{path}: cannot be read ({reason}); delete it to train this network from the start")
