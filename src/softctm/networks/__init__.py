"""What is trained: DeepLabV3+ in PyTorch."""

from softctm.networks.deeplab import DeepLab, NetworkSpec, ServedNetwork

__all__ = ["DeepLab", "NetworkSpec", "ServedNetwork"]
