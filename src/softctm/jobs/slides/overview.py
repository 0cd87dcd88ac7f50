"""What every overview shows, whatever was looked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from softctm.jobs.slides.tasks import FinishedSlide
from softctm.slides.mask import MASK_MPP
from softctm.writers.slide_overview import OverviewContent, Panel


def overview_content(
    done: FinishedSlide,
    looked_at: NDArray[np.float32],
    panels: Sequence[Panel],
    density: NDArray[np.integer],
    numbers: Sequence[tuple[str, str]],
    cancer: NDArray[np.float32] | None = None,
) -> OverviewContent:
    """The content of a slide's overview; parameters as there, grids on the mask's pixels."""
    slide = done.slide
    size = f"{slide.width_um / 1000:.1f} x {slide.height_um / 1000:.1f} mm"
    return OverviewContent(
        title=done.state.folder.name,
        image=done.overview.image,
        image_um=done.overview.mpp,
        width_um=slide.width_um,
        height_um=slide.height_um,
        grid_um=MASK_MPP,
        looked_at=looked_at,
        panels=panels,
        density=density,
        cancer=cancer,
        numbers=(*numbers, ("slide", size)),
        rings=[ring * np.array(slide.mpp) for ring in done.region.rings()] if done.region else [],
    )


def rounded(value: float | None) -> str:
    """A number without decimals, a dash where there is none."""
    return "-" if value is None else f"{value:,.0f}"
