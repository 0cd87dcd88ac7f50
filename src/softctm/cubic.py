"""The kernel of every bicubic enlargement here."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CUBIC_A = -0.75
"""The kernel's parameter, as in OpenCV's INTER_CUBIC and PyTorch's bicubic."""


def cubic_kernel(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys's kernel (Keys 1981) with parameter `CUBIC_A`, at distances 0 … 2 in input pixels."""
    near = (CUBIC_A + 2) * distance**3 - (CUBIC_A + 3) * distance**2 + 1
    far = CUBIC_A * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return np.where(distance <= 1, near, far)
