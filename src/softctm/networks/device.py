"""Where PyTorch computes."""

from __future__ import annotations

import os

import torch


def own_device() -> torch.device:
    """This process's GPU, torchrun's `LOCAL_RANK` of those that there are; without one the processor."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
