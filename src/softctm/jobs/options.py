"""What a user can choose for a job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from softctm.choices import VIEW_COUNTS, DeviceWish, Precision
from softctm.errors import UsageError
from softctm.writers.viewers import FORMATS


@dataclass(frozen=True)
class Quality:
    """How many passes a pair is worth.

    Attributes
    ----------
    views : int
        1, 2, 4 or 8 views a network.
    cell_networks : int or None
        How many of the model's cell networks, the first ones; None takes all.
    """

    views: int
    cell_networks: int | None


QUALITIES = {"fast": Quality(1, 3), "balanced": Quality(2, None), "full": Quality(8, None)}
"""Chosen from the table in docs/performance.md: more networks buy more than more views."""


@dataclass(frozen=True)
class JobOptions:
    """Checked when made.

    Attributes
    ----------
    weights : Path or None
        Model folder; None looks in the documented places.
    device : str
        `auto`, `cpu` or `cuda`.
    quality : str
        One of `QUALITIES`.
    views : int or None
        Views a network instead of the quality's.
    precision : str
        `float32` or `float16`, what the networks compute in.
    subset : str or None
        For an OCELOT release.
    allow_partial : bool
        Whether a result without the pairs that failed counts as success.
    also : tuple of str
        Further files a pair: `geojson`, `csv`, `overlay`, `tissue`.
    debug : bool
        Whether to show the traceback of unexpected errors.

    Raises
    ------
    UsageError
        If a value is out of range.
    """

    weights: Path | None = None
    device: DeviceWish = "auto"
    quality: str = "full"
    views: int | None = None
    precision: Precision = "float32"
    subset: str | None = None
    allow_partial: bool = False
    also: tuple[str, ...] = ()
    debug: bool = False

    def __post_init__(self) -> None:
        if self.device not in get_args(DeviceWish):
            raise UsageError(f"device must be one of {', '.join(get_args(DeviceWish))}, not {self.device}")
        if self.quality not in QUALITIES:
            raise UsageError(f"quality must be one of {', '.join(QUALITIES)}, not {self.quality}")
        if self.views not in (None, *VIEW_COUNTS):
            raise UsageError(f"views must be one of {', '.join(map(str, VIEW_COUNTS))}, not {self.views}")
        if self.precision not in get_args(Precision):
            known = ", ".join(get_args(Precision))
            raise UsageError(f"precision must be one of {known}, not {self.precision}")
        for name in self.also:
            if name not in FORMATS:
                raise UsageError(f"--also knows {', '.join(FORMATS)}, not {name}")

    @property
    def chosen_quality(self) -> Quality:
        """The quality, with the views that were asked for."""
        preset = QUALITIES[self.quality]
        return Quality(self.views or preset.views, preset.cell_networks)
