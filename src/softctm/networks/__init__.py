"""What is trained: DeepLabV3+ in PyTorch."""

from softctm.networks.deeplab import DeepLab, NetworkSpec, ServedNetwork
from softctm.networks.exported import load_exported
from softctm.networks.weights import load_network, save_network

__all__ = ["DeepLab", "NetworkSpec", "ServedNetwork", "load_exported", "load_network", "save_network"]
