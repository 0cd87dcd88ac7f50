"""Whether a network can be trained with a recipe: asked before data are read."""

from __future__ import annotations

from softctm.errors import UsageError
from softctm.networks.network_config import NetworkConfig
from softctm.networks.network_table import architecture_of, build_network


def check_trainable(config: NetworkConfig, coupling: str = "none", place: str = "") -> None:
    """Refuse a network that cannot be built, or not be trained with a coupling of cells and tissue.

    Parameters
    ----------
    config : NetworkConfig
    coupling : str
        See `TaskConfig.coupling`.
    place : str
        Of the network in its preset, such as "cells.", for messages.

    Raises
    ------
    UsageError
        It names the settings.
    """
    couplings, name = architecture_of(config).couplings, config.architecture
    if coupling not in couplings:
        raise UsageError(
            f"{place}coupling={coupling} does not go with the architecture {name}, which takes "
            f"{' or '.join(couplings)}; change one of them with --set"
        )
    try:
        build_network(config)
    except UsageError as error:
        raise UsageError(f"{place}network: {error}") from None
    except (KeyError, ValueError, RuntimeError) as error:  # as the library has them
        reason = str(error.args[0] if error.args else error).splitlines()[0]
        reason = reason.split(", supported")[0].rstrip(".")  # encoders, of which there are hundreds
        raise UsageError(
            f"{place}network: {name} with encoder {config.encoder} of depth {config.depth} cannot be built "
            f"({reason}); change them with --set"
        ) from None


def check_crop(config: NetworkConfig, crop: int) -> None:
    """Refuse crops that a network cannot halve as often as it does.

    Parameters
    ----------
    config : NetworkConfig
    crop : int
        Side of a crop at full resolution, pixels.

    Raises
    ------
    UsageError
        It says what the side must be a multiple of.
    """
    multiple = config.downsampling * min(architecture_of(config).multiple, 2**config.depth)
    if crop % multiple:
        raise UsageError(
            f"augmentation.crop={crop}: must be a multiple of {multiple} for a network of downsampling "
            f"{config.downsampling} and depth {config.depth}"
        )
