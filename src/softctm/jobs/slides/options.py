"""What a user can choose for slides: the detector's options, and the job's own."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from softctm.errors import UsageError
from softctm.inference.detector_options import QUALITIES, DetectorOptions
from softctm.options import option
from softctm.ort.runtime import cuda_fault
from softctm.slides.resolution import check_mpp_option
from softctm.writers.embedding_files import EMBEDDING_WRITERS
from softctm.writers.slide_formats import FURTHER

_AUTO = "auto"
_FURTHER = (*FURTHER, *EMBEDDING_WRITERS)


@dataclass(frozen=True)
class SlideOptions(DetectorOptions):
    """Checked when made; UsageError names what is out of range."""

    quality: str = option(
        _AUTO,
        "passes a field of view; auto takes fast on a CPU and full on a GPU",
        choices=(_AUTO, *QUALITIES),
    )
    mpp: float | None = option(None, "µm per level-0 pixel, instead of what the slides say", metavar="X")
    region: Path | None = option(
        None, "GeoJSON of the region of interest (default: all tissue)", metavar="FILE"
    )
    also: tuple[str, ...] = option(
        (),
        f"further files a slide, separated by commas: {', '.join(_FURTHER)}",
        metavar="LIST",
        choices=_FURTHER,
    )
    workers: int | None = option(None, "compute in N processes (default: in this one)", metavar="N")
    scheduler: str | None = option(
        None, "compute on the workers of a Dask scheduler, tcp://…", metavar="ADDRESS"
    )
    overwrite: bool = option(False, "discard results that are there and compute them again")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_mpp_option(self.mpp)
        if self.workers is not None and self.scheduler is not None:
            raise UsageError("--workers starts a cluster and --scheduler uses another; give one of them")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers must be at least 1, not {self.workers}")

    def for_this_machine(self) -> DetectorOptions:
        """The detector's options, with the quality that suits this machine's device."""
        chosen = {declared.name: getattr(self, declared.name) for declared in fields(DetectorOptions)}
        if self.quality == _AUTO:
            on_card = self.device != "cpu" and cuda_fault() is None
            chosen["quality"] = "full" if on_card else "fast"
        return DetectorOptions(**chosen)
