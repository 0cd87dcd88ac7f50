"""A trained network's weights on disk."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from softctm.errors import TrainingError
from softctm.networks.deeplab import DeepLab, NetworkSpec
from softctm.networks.encoder_weights import stride_early, strides_early

_STRIDES = "encoder_strides"
_EARLY = "in the first convolution"


def save_network(network: DeepLab, path: Path) -> None:
    """Write a network's weights, whole or not at all, and where its encoder's strides sit.

    That place is no weight, but the same weights with another place are another network.
    """
    partial = path.with_name("partial.safetensors")
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(weights, partial, {_STRIDES: _EARLY} if strides_early(network.body.encoder) else None)
    partial.rename(path)


def load_network(spec: NetworkSpec, path: Path) -> DeepLab:
    """The network that `save_network` wrote, in evaluation mode; TrainingError if it cannot be."""
    network = DeepLab(spec)
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get(_STRIDES) == _EARLY:
                stride_early(network.body.encoder)
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path}: cannot be read as a network's weights ({error})") from None
    except RuntimeError as error:
        raise TrainingError(
            f"{path}: from another configuration ({str(error).splitlines()[-1].strip()})"
        ) from None
    return network.eval()
