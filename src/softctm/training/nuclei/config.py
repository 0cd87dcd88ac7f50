"""Every number of a nuclei network's training; the presets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from softctm.errors import UsageError
from softctm.networks.network_config import NetworkConfig
from softctm.networks.nuclei_unet import WHERE
from softctm.networks.ranges import NOT_NEGATIVE, POSITIVE, SHARE, check_ranges
from softctm.networks.trainable import check_crop, check_trainable
from softctm.networks.vit import ENCODERS, TOKEN
from softctm.training.config import OptimizerConfig
from softctm.training.nuclei.augment import NucleiAugmentationConfig
from softctm.training.nuclei.losses import LossWeights
from softctm.training.processes import check_shared


@dataclass(frozen=True)
class NucleiConfig:
    """One recipe.

    Attributes
    ----------
    network : NetworkConfig or str
        A network of the table, or the name of a CellViT encoder: "256", "SAM-B", …
    optimizer : OptimizerConfig
    augmentation : NucleiAugmentationConfig
    losses : LossWeights
    oversampling : float
        γ of `oversampling_weights`.
    frozen_epochs : int
        The first epochs, in which the encoder does not learn.
    mpp : float
        µm per pixel that images are taken to have.
    """

    network: NetworkConfig | str
    optimizer: OptimizerConfig
    augmentation: NucleiAugmentationConfig
    losses: LossWeights
    oversampling: float = 0.85
    frozen_epochs: int = 0
    mpp: float = 0.25

    def __post_init__(self) -> None:
        check_ranges(self, oversampling=SHARE, frozen_epochs=NOT_NEGATIVE, mpp=POSITIVE)

    @property
    def downsampling(self) -> int:
        """Of what the network sees against the images."""
        return 1 if isinstance(self.network, str) else self.network.downsampling

    def check(self) -> None:
        """Make sure that values fit each other; UsageError names those that do not."""
        check_shared(self.optimizer.batch, self.optimizer.accumulation)
        if isinstance(self.network, str) and self.network not in ENCODERS:
            raise UsageError(
                f"network={self.network}: no encoder of CellViT; there are {', '.join(ENCODERS)}"
            )
        if isinstance(self.network, str) and self.optimizer.frozen_stages:
            raise UsageError("optimizer.frozen_stages: is for ResNets; CellViT has frozen_epochs")
        if self.frozen_epochs > self.optimizer.epochs:
            raise UsageError(
                f"frozen_epochs={self.frozen_epochs}: more than optimizer.epochs={self.optimizer.epochs}; "
                "the encoder would never learn"
            )
        if isinstance(self.network, str):
            if self.augmentation.crop % TOKEN:
                raise UsageError(f"augmentation.crop={self.augmentation.crop}: must be a multiple of {TOKEN}")
        else:
            check_trainable(self.with_maps(types=2))
            check_crop(self.network, self.augmentation.crop)

    @property
    def magnification(self) -> int:
        """What images of its µm per pixel are called, 40 or 20: decoding and scores depend on it."""
        return 40 if self.mpp < _BETWEEN_20_AND_40 else 20

    def has_weights_of(self, other: NucleiConfig) -> bool:
        """Whether its networks have the weights of another configuration's, apart from those of types."""
        if isinstance(self.network, str) or isinstance(other.network, str):
            return self.network == other.network
        return self.network.has_weights_of(other.network)

    def with_maps(self, types: int) -> NetworkConfig:
        """The network of the table with the channels of all maps, for so many types (background included)."""
        assert not isinstance(self.network, str)
        return replace(self.network, classes=WHERE + types)


_BETWEEN_20_AND_40 = 0.375
"""µm per pixel, half way from 0.25 to 0.5."""

NUCLEI_PRESETS = {
    # Modeled on CellViT's recipe (arXiv 2306.15350); no number has been checked against the paper's text.
    "cellvit-256": NucleiConfig(
        "256",
        OptimizerConfig("adamw", 3e-4, 1e-4, "exponential", epochs=130, batch=16, decay_per_epoch=0.85),
        NucleiAugmentationConfig(
            elastic_px=4.0, shrink=0.5, stain=0.0, noise=0.1, zoom_blur=0.1, superpixels=0.1, blur_px=2.0
        ),
        LossWeights(),
        frozen_epochs=25,
    ),
    # A ResNet18, for processors: half an hour a network on one core.
    "compact": NucleiConfig(
        NetworkConfig("resnet18", depth=4, decoder_channels=128, downsampling=1, architecture="nuclei-unet"),
        OptimizerConfig("adamw", 3e-3, 1e-2, "one-cycle", epochs=10, batch=8, encoder_factor=0.1, ema=0.99),
        NucleiAugmentationConfig(),
        LossWeights(np_cross_entropy=1.0, nt_cross_entropy=2.0, hv_gradient_error=2.0, nt_balance=0.5),
    ),
}


def nuclei_config_from_json(document: dict[str, Any]) -> NucleiConfig:
    """The configuration that `dataclasses.asdict` and JSON made `document` from."""
    network = document["network"]
    if not isinstance(network, str):
        network = NetworkConfig(**{**network, "scales": tuple(network["scales"])})
    return NucleiConfig(
        **{
            **document,
            "network": network,
            "optimizer": OptimizerConfig(**document["optimizer"]),
            "augmentation": NucleiAugmentationConfig(**document["augmentation"]),
            "losses": LossWeights(**document["losses"]),
        }
    )
