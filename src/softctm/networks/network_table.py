"""Network architectures by name. A new one is one file beside `deeplab` and a line here."""

from __future__ import annotations

from softctm.errors import UsageError
from softctm.networks.architecture import SegmentationNetwork
from softctm.networks.deeplab import DeepLab
from softctm.networks.feature_sharing import FeatureSharing
from softctm.networks.injection import DeepLabAfterASPP, DeepLabAfterDecoder, DeepLabAfterEncoder
from softctm.networks.joint import injected
from softctm.networks.network_config import NetworkConfig
from softctm.networks.nuclei_unet import NucleiUNet
from softctm.networks.second_encoder import SecondEncoder
from softctm.networks.segformer import SegFormer
from softctm.networks.unet import UNet

ARCHITECTURES: dict[str, type[SegmentationNetwork]] = {
    "deeplabv3plus": DeepLab,
    "deeplabv3plus-after-encoder": DeepLabAfterEncoder,
    "deeplabv3plus-after-aspp": DeepLabAfterASPP,
    "deeplabv3plus-after-decoder": DeepLabAfterDecoder,
    "feature-sharing": FeatureSharing,
    "joint-deeplabv3plus": injected(DeepLab, DeepLab),
    "joint-deeplabv3plus-after-encoder": injected(DeepLabAfterEncoder, DeepLab),
    "joint-deeplabv3plus-after-aspp": injected(DeepLabAfterASPP, DeepLab),
    "joint-deeplabv3plus-after-decoder": injected(DeepLabAfterDecoder, DeepLab),
    "joint-segformer": injected(SegFormer, SegFormer),
    "joint-unet": injected(UNet, UNet),
    "mfovce-net": SecondEncoder,
    "nuclei-unet": NucleiUNet,
    "segformer": SegFormer,
    "unet": UNet,
}
"""`NetworkConfig.architecture` → its class. One contract test runs over all entries."""


def architecture_of(config: NetworkConfig) -> type[SegmentationNetwork]:
    """The class that a configuration names.

    Raises
    ------
    UsageError
        If there is none of that name.
    """
    try:
        return ARCHITECTURES[config.architecture]
    except KeyError:
        raise UsageError(
            f"architecture '{config.architecture}': unknown; choose one of {', '.join(sorted(ARCHITECTURES))}"
        ) from None


def build_network(config: NetworkConfig, encoder_weights: str | None = None) -> SegmentationNetwork:
    """A new network; errors as `architecture_of` and the architecture's own say."""
    return architecture_of(config)(config, encoder_weights)
