"""What a user can choose for a job on pairs: the detector's options, and the job's own."""

from __future__ import annotations

from dataclasses import dataclass

from softctm.errors import UsageError
from softctm.inference.detector_options import DetectorOptions, tumor_types
from softctm.options import option
from softctm.writers.viewers import FORMATS, FROM_MAPS


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
    as_cells: tuple[str, ...] = option(
        (),
        "take a model of nuclei (without --weights: model_weights/nuclei): these types are tumor cells, "
        "every other is a background cell",
        metavar="TYPE=tumor[,…]",
    )
    overwrite: bool = option(False, "replace results in the output folder that another program wrote")
    allow_partial: bool = option(False, "exit with 0 although some pairs failed and are missing")

    def __post_init__(self) -> None:
        super().__post_init__()
        tumor_types(self.as_cells)
        if self.as_cells and "tissue" in self.also:
            raise UsageError(
                "--also tissue: a model of nuclei, as --as-cells takes, maps no tissue; leave one of them out"
            )

    @property
    def maps(self) -> bool:
        """Whether the detector's probability maps are needed; a model of nuclei has none."""
        return not self.as_cells and not FROM_MAPS.isdisjoint(self.also)
