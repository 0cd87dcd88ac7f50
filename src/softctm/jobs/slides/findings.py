"""What is found on a slide, for programs: field by field, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from softctm.jobs.slides.cells.detector import FieldDetector, peak_distance
from softctm.jobs.slides.cells.merge import slide_cells
from softctm.jobs.slides.job import compute_slide
from softctm.jobs.slides.stretches import FieldPlace
from softctm.slides.region import Region
from softctm.slides.slide import Slide

if TYPE_CHECKING:
    from softctm.inference.image_detector import ImageDetector
    from softctm.postprocessing.measured_nuclei import MeasuredNuclei
    from softctm.writers.slide_points import SlideCells


def find_cells_on_slide(
    slide: Slide, detector: FieldDetector, folder: Path, region: Region | None = None
) -> Iterator[tuple[FieldPlace, SlideCells]]:
    """The cells of a slide, field by field: the same that `softctm slides` writes.

    The fields are computed first, into a state in `folder`, from which an interrupted call is gone on with;
    the results then stream from there in constant memory.

    Parameters
    ----------
    slide : Slide
    detector : Detector
        See `softctm.load_detector`.
    folder : Path
        For the state; what is in it belongs to this slide, model and region.
    region : Region, optional
        Of interest, instead of all tissue.

    Yields
    ------
    field : (int, int)
        Column and row of the field of view, row-major.
    cells : SlideCells
        Those that it owns, in level-0 pixels and µm.

    Raises
    ------
    SlideError
        If the slide cannot be read, or `folder` holds something else.
    OutputError
        If `folder` cannot be written to.
    """
    done = compute_slide(slide, detector, folder, region)
    distance = peak_distance(detector.model)
    yield from slide_cells(done.state, done.plan.stages["cells"], slide, region, distance)


def find_nuclei_on_slide(
    slide: Slide,
    detector: ImageDetector,
    folder: Path,
    region: Region | None = None,
    *,
    embeddings: bool = False,
) -> Iterator[tuple[FieldPlace, MeasuredNuclei]]:
    """The nuclei of a slide, field by field: the same that `softctm slides` writes.

    Parameters
    ----------
    slide, folder, region
        See `find_cells_on_slide`.
    detector : ImageDetector
        Of a model of nuclei; see `softctm.load_detector`.
    embeddings : bool
        Whether to make embeddings of the nuclei as well.

    Yields
    ------
    field : (int, int)
        Column and row of the field of view, row-major.
    nuclei : MeasuredNuclei
        Those that were taken from it, in pixels of the model's µm per pixel from the slide's origin.

    Raises
    ------
    As `find_cells_on_slide`; ModelError if embeddings cannot be made.
    """
    from softctm.jobs.slides.nuclei.task import NucleiSlides  # slow to import

    done = compute_slide(slide, detector, folder, region, embeddings=embeddings)
    yield from NucleiSlides(detector.model).nuclei(done)
