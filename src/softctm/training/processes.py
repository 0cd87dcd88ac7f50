"""The processes of one training: torchrun's, or the only one."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from softctm.errors import UsageError
from softctm.networks.device import own_device
from softctm.progress import counted
from softctm.storage.lock import NoLocksError, locked

_logger = logging.getLogger(__name__)

_LOCK = ".lock"


def is_first_process() -> bool:
    """Whether this process writes what all have learned; without torchrun the only one does."""
    return os.environ.get("RANK", "0") == "0"


def check_shared(batch: int, accumulation: int) -> None:
    """Make sure that all processes get as many images of a batch, in each of its parts.

    Raises
    ------
    UsageError
        If they do not.
    """
    world = _world_size()
    if batch % (world * accumulation):
        raise UsageError(
            f"optimizer: a batch of {batch} in {counted(accumulation, 'part')} cannot be shared evenly by "
            f"{counted(world, 'process', 'processes')}; change batch or accumulation"
        )


def _world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def join_group() -> tuple[int, int, torch.device]:
    """Rank, number of processes and device of this one; joins torchrun's group."""
    world = _world_size()
    rank = int(os.environ.get("RANK", "0"))
    device = own_device()
    if world > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return rank, world, device


def wait_for_all() -> None:
    """Let every process of torchrun's group get here before any goes on."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other trainings out of a network's folder, here or on a machine that shares it.

    Raises
    ------
    OutputError
        If another one is at it.
    """
    if not is_first_process():
        yield
        return

    def busy(holder: str) -> str:
        return f"{folder}: is being trained by {holder}; wait for it, or train another fold"

    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(folder / _LOCK, busy))
        except NoLocksError:
            _logger.warning("%s: its file system has no locks; see that nobody else trains it", folder)
        yield
