"""Handing a trained network's weights on to another one that is not quite the same."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from softctm.errors import TrainingError
from softctm.networks.architecture import SegmentationNetwork
from softctm.networks.weights import stored_facts

logger = logging.getLogger(__name__)


@torch.no_grad()
def transfer_weights(network: SegmentationNetwork, path: Path) -> None:
    """Fill a network, in place, with what fits of the weights that `save_network` wrote.

    Weights of the same name and shape are copied. Where the network takes more input channels than the stored
    one, those weights start at zero, so that training begins with what is known. Everything else stays as it
    is; its names are logged.

    Raises
    ------
    TrainingError
        If the file cannot be read, or the encoders differ.
    """
    network.apply_facts(stored_facts(path))
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path}: cannot be read as a network's weights ({error})") from None
    left = []
    for name, own in _learned(network):
        given = _widened(stored[name], own) if name in stored else None
        if given is not None:
            own.copy_(given)
        elif ".encoder." in name:
            raise TrainingError(
                f"{path}: its encoder is another one than this network's ({name} does not fit)"
            )
        else:
            left.append(name)
    if left:
        logger.info("%s: does not hold %s; they start from random weights", path, ", ".join(left))


def _learned(network: SegmentationNetwork) -> Iterator[tuple[str, Tensor]]:
    """Everything that training changes: the input's mean and standard deviation are given, not learned."""
    given = {"mean", "std"}
    yield from ((name, value) for name, value in network.state_dict().items() if name not in given)


def _widened(given: Tensor, wanted: Tensor) -> Tensor | None:
    """The stored weights, with zeros for input channels that are new; None where they do not fit."""
    if given.shape == wanted.shape:
        return given
    is_wider = (
        given.ndim == wanted.ndim == 4
        and given.shape[1] < wanted.shape[1]
        and given.shape[0] == wanted.shape[0]
        and given.shape[2:] == wanted.shape[2:]
    )
    if not is_wider:
        return None
    missing = given.new_zeros(given.shape[0], wanted.shape[1] - given.shape[1], *given.shape[2:])
    return torch.cat([given, missing], 1)
