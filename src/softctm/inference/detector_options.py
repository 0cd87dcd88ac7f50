"""What a user can choose about the networks: which, where, how many passes, in what precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from softctm.choices import VIEW_COUNTS, DeviceChoice, Precision
from softctm.errors import UsageError
from softctm.options import check_choices, option


@dataclass(frozen=True)
class Quality:
    """How many passes a pair is worth.

    Attributes
    ----------
    views : int
        1, 2, 4 or 8 views a network.
    networks : int or None
        How many networks of the model's last stage, the first ones; None takes all.
    prefers_int8 : bool
        Whether int8 is taken on processors that are fast at it, where the model has it.
    """

    views: int
    networks: int | None
    prefers_int8: bool


QUALITIES = {
    "fast": Quality(1, 3, prefers_int8=True),
    "balanced": Quality(2, None, prefers_int8=True),
    "full": Quality(8, None, prefers_int8=False),
}
"""Chosen from the table in docs/performance.md: more networks buy more than more views."""

_SHOWN = ", ".join(
    f"{name} {q.views} views × {q.networks or 'all'} networks" for name, q in QUALITIES.items()
)


@dataclass(frozen=True)
class DetectorOptions:
    """Checked when made; UsageError names what is out of range."""

    weights: Path | None = option(
        None,
        "model folder (default: $SOFTCTM_WEIGHTS, else /opt/ml/model if it is one, else model_weights)",
        metavar="DIR",
    )
    device: DeviceChoice = option("auto", "auto takes CUDA where it works")
    quality: str = option("full", f"passes a pair: {_SHOWN}", choices=tuple(QUALITIES))
    views: int | None = option(
        None, "views for test-time augmentation (default: the quality's)", choices=VIEW_COUNTS
    )
    precision: Precision | None = option(
        None,
        "what the networks compute in; float16 needs tensor cores to pay, int8 a processor with VNNI or AMX "
        "(default: float32; with --quality fast or balanced int8 where it pays and the model has it)",
    )

    def __post_init__(self) -> None:
        check_choices(self)

    @property
    def chosen_quality(self) -> Quality:
        """The quality, with the views that were asked for."""
        preset = QUALITIES[self.quality]
        return Quality(self.views or preset.views, preset.networks, preset.prefers_int8)


def tumor_types(as_cells: Sequence[str]) -> list[str]:
    """The types of nuclei that are taken for tumor cells.

    Parameters
    ----------
    as_cells : sequence of str
        "TYPE=tumor", one per type.

    Raises
    ------
    UsageError
        If one has another form.
    """
    names = []
    for text in as_cells:
        name, _, kind = text.rpartition("=")
        if not name or kind != "tumor":
            raise UsageError(
                f"--as-cells must be TYPE=tumor, or several with commas between them, not '{text}'; types "
                "that are not named are background cells"
            )
        names.append(name)
    return names
