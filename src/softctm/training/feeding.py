"""Feeding the loop: the patches of every step, made ready by worker processes while the network computes.

Randomness comes from (seed, step, position) alone: the batches are the same with any number of workers, and
in a run that was stopped and resumed.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from softctm.errors import TrainingError

logger = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")
"""Where worker processes hand over their batches."""

_FIRST_BATCHES = 16

PREFETCHED = 2
"""Batches that each worker prepares ahead."""


class MicroBatch(NamedTuple):
    """The part of a step's batch that goes through the network at once: positions `first` … `last` − 1."""

    step: int
    first: int
    last: int


class Draw(NamedTuple):
    """One sample: a patch, by its index, drawn for a position in a step's batch."""

    step: int
    position: int
    patch: int


class Feed(Protocol):
    """Turns micro-batches into what the loop computes on."""

    def __call__(self, parts: Sequence[MicroBatch]) -> Iterator[tuple[Any, Any]]:
        """Images and targets of each part, in order; tensors, or dicts, lists and tuples of them."""


class StepSampler(Sampler[list[Draw]]):
    """The samples of every micro-batch.

    Parameters
    ----------
    parts : sequence of MicroBatch
    choose : callable
        Step → (batch,) the patches of its whole batch.
    """

    def __init__(self, parts: Sequence[MicroBatch], choose: Callable[[int], NDArray[np.int64]]) -> None:
        self._parts, self._choose = parts, choose

    def __iter__(self) -> Iterator[list[Draw]]:
        for step, first, last in self._parts:
            chosen = self._choose(step)
            yield [Draw(step, position, int(chosen[position])) for position in range(first, last)]

    def __len__(self) -> int:
        return len(self._parts)


def feed_from(dataset: Dataset[Any], choose: Callable[[int], NDArray[np.int64]], workers: int = 0) -> Feed:
    """A feed from a map-style dataset whose items are found by `Draw`.

    Parameters
    ----------
    dataset : Dataset
        `dataset[draw]` → image and target; what is random in it must follow from the draw.
    choose : callable
        Step → (batch,) the patches of its batch.
    workers : int
        Worker processes; 0 makes batches in this one. Without enough shared memory there are none.
    """

    def batches(parts: Sequence[MicroBatch]) -> Iterator[tuple[Any, Any]]:
        sampler = StepSampler(parts, choose)
        number = workers and _usable_workers(workers, dataset, next(iter(sampler), []))
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=sampler,
            num_workers=number,
            prefetch_factor=PREFETCHED if number else None,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # leaves the step's own randomness alone
        )
        handler = signal.getsignal(signal.SIGCHLD)
        iterator = iter(loader)
        if number and handler is not None and threading.current_thread() is threading.main_thread():
            # PyTorch's handler raises its error wherever this process is; fetching a batch notices too.
            signal.signal(signal.SIGCHLD, handler)
        try:
            yield from iterator
        except (ConnectionError, EOFError, RuntimeError) as error:
            if not number or (isinstance(error, RuntimeError) and "DataLoader worker" not in str(error)):
                raise
            raise TrainingError(
                "a worker process died, perhaps for lack of memory; train with fewer --workers, or 0"
            ) from error

    return batches


def first_batches(
    dataset: Dataset[Any], choose: Callable[[int], NDArray[np.int64]], batch: int
) -> Iterator[Tensor]:
    """Images of the first steps: what the batch statistics of an exported network are measured on.

    Parameters
    ----------
    dataset, choose
        As `feed_from` takes them.
    batch : int
        Images of a step, the first ones of its batch.
    """
    for step in range(_FIRST_BATCHES):
        chosen = choose(step)[:batch].tolist()
        yield torch.stack([dataset[Draw(step, place, patch)][0] for place, patch in enumerate(chosen)])


def fixed_batches(dataset: Dataset[Any], most: int, batch: int) -> Iterator[list[Tensor]]:
    """Batches of at most so many items of a dataset as `feed_from` takes, the same ones every time.

    Parameters
    ----------
    dataset : Dataset
        With a length; its items are tuples of tensors.
    most, batch : int

    Yields
    ------
    list of Tensor
        The items' parts, each stacked.
    """
    chosen = np.random.default_rng(0).permutation(len(dataset))[:most]  # type: ignore[arg-type]
    for first in range(0, len(chosen), batch):
        numbers = range(first, min(first + batch, len(chosen)))
        items = [dataset[Draw(0, number, int(chosen[number]))] for number in numbers]
        yield [torch.stack(part) for part in zip(*items, strict=True)]


def can_share_memory(size: int = 0) -> bool:
    """Whether processes can hand over so many bytes; a container may have no /dev/shm, or a small one."""
    try:
        return os.access(SHARED_MEMORY, os.W_OK) and shutil.disk_usage(SHARED_MEMORY).free > size
    except OSError:
        return False


def _usable_workers(wanted: int, dataset: Dataset[Any], first: list[Draw]) -> int:
    if not first:
        return 0
    size = len(first) * _bytes_of(dataset[first[0]])
    # One batch more than is prefetched is on its way to the network.
    if can_share_memory((PREFETCHED + 1) * wanted * size):
        return wanted
    logger.warning(
        "%s is missing or too small for %d worker processes: batches are made in the training process; "
        "give the container more shared memory (docker run --shm-size), or train with --workers 0",
        SHARED_MEMORY,
        wanted,
    )
    return 0


def _bytes_of(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes
    return sum(_bytes_of(part) for part in (value.values() if isinstance(value, dict) else value))
