"""What is trained: DeepLabV3+ in PyTorch."""

from softctm.networks.deeplab import DeepLab, NetworkSpec, ServedNetwork
from softctm.networks.weights import load_network, save_network

__all__ = ["DeepLab", "NetworkSpec", "ServedNetwork", "load_network", "save_network"]
