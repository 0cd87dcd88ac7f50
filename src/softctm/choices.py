"""The values that a user can choose from, apart from what acts on them, which is slow to import."""

from __future__ import annotations

from typing import Literal

DeviceChoice = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "float16", "int8"]
"""What the networks compute in."""

VIEW_COUNTS = (1, 2, 4, 8)
"""Views for test-time augmentation."""
