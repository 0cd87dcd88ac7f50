"""A trained network's weights on disk."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from softctm.errors import TrainingError
from softctm.networks.architecture import SegmentationNetwork
from softctm.networks.network_config import NetworkConfig
from softctm.networks.network_table import build_network
from softctm.storage.files import write_bytes_atomically


def save_network(network: SegmentationNetwork, path: Path, facts: dict[str, str] | None = None) -> None:
    """Write a network's weights, whole or not at all, with its own facts and those that are given.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    write_weights(network, path, {**network.facts(), **(facts or {})})


def write_weights(network: nn.Module, path: Path, facts: dict[str, str] | None = None) -> None:
    """Write any module's weights, whole or not at all, with the facts that are given; errors as above."""
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    write_bytes_atomically(path, save(weights, facts or None))


def load_network(config: NetworkConfig, path: Path) -> SegmentationNetwork:
    """The network that `save_network` wrote, in evaluation mode.

    Raises
    ------
    TrainingError
        If the file cannot be read or is of another configuration.
    """
    network = build_network(config)
    network.apply_facts(stored_facts(path))
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from None
    except RuntimeError as error:
        raise TrainingError(
            f"{path}: from another configuration ({str(error).splitlines()[-1].strip()})"
        ) from None
    return network.eval()


def stored_facts(path: Path) -> dict[str, str]:
    """What `save_network` wrote beside the weights.

    Raises
    ------
    TrainingError
        If the file cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> TrainingError:
    return TrainingError(
        f"{path}: cannot be read as a network's weights ({error}); delete it to train the network again"
    )
