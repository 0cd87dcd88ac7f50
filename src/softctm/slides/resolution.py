"""The resolutions at which nuclei can be found."""

from __future__ import annotations

from softctm.errors import UsageError

FINEST_MPP, COARSEST_MPP = 0.05, 1.0
"""µm per pixel. No microscope resolves more than the first; beyond the second nuclei cannot be told apart."""

MPP_RANGE = f"µm per pixel from {FINEST_MPP:g} to {COARSEST_MPP:g}"

_COARSE = 1.5
"""An image whose pixels are so much larger than those that networks know is warned of."""


def is_usable(mpp: float) -> bool:
    """Whether nuclei can be found at that many µm per pixel."""
    return FINEST_MPP <= mpp <= COARSEST_MPP


def check_mpp_option(mpp: float | None) -> None:
    """Refuse a `--mpp` at which nuclei cannot be found.

    Raises
    ------
    UsageError
        If it lies outside of `FINEST_MPP` … `COARSEST_MPP`.
    """
    if mpp is not None and not is_usable(mpp):
        raise UsageError(f"--mpp must be {MPP_RANGE} (40x: about 0.25, 20x: 0.5), not {mpp:g}")


def resolution_warnings(label: str, mpp: float, known_mpp: float) -> tuple[str, ...]:
    """What is lost if networks that know `known_mpp` µm per pixel look at an image of `mpp`, if much is."""
    if mpp <= _COARSE * known_mpp:
        return ()
    return (
        f"{label}: {mpp:.3g} µm per pixel is coarser than the {known_mpp:g} that the networks know; fine "
        "structure of nuclei is missing, expect more wrong classes and missed cells",
    )
