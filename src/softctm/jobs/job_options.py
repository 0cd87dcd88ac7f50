"""What a user can choose for a job on pairs: the detector's options, and the job's own."""

from __future__ import annotations

from dataclasses import dataclass

from softctm.inference.detector_options import DetectorOptions
from softctm.options import option
from softctm.writers.viewers import FORMATS


@dataclass(frozen=True)
class JobOptions(DetectorOptions):
    """Checked when made; UsageError names what is out of range."""

    subset: str | None = option(None, "subset of an OCELOT release, such as train", metavar="NAME")
    also: tuple[str, ...] = option(
        (),
        f"further files a pair, separated by commas: {', '.join(FORMATS)}",
        metavar="LIST",
        choices=tuple(FORMATS),
    )
    overwrite: bool = option(False, "replace results in the output folder that another program wrote")
    allow_partial: bool = option(False, "exit with 0 although some pairs failed and are missing")
