"""`run.json`: what ran, on what, with which result, so that a result can be traced and repeated."""

from __future__ import annotations

import contextlib
import logging
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from softctm import __version__
from softctm.errors import InputError
from softctm.inference.stage_times import timed
from softctm.points import CellClass, CellPoints
from softctm.storage.text_files import read_json
from softctm.terminal.unexpected import as_expected

if TYPE_CHECKING:
    from softctm.model import Model

_logger = logging.getLogger(__name__)

FILE_NAME = "run.json"

_LIBRARIES = ("numpy", "scipy", "scikit-image", "pillow", "SimpleITK", "tifffile", "onnx")
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")


class AnyDetector(Protocol):
    """What the record says of a detector, of whatever task."""

    @property
    def device(self) -> str:
        """Where the networks really run."""

    notice: str | None
    model: Model


@dataclass
class RunRecord:
    """Everything that `run.json` says; filled while the job runs.

    Attributes
    ----------
    options : mapping
        The job's options as given.
    status : str
        `unfinished` while there is work left, then `complete`, `partial`, `interrupted` or `failed`.
    error : str or None
        Why the job as a whole failed.
    seconds : dict
        Wall time by stage. `read` runs beside `detect`: only `wait_for_input` of it is added to `total`.
    detect_seconds : dict
        What `detect` consists of: the detector's own stages.
    unit : str
        What the job goes through one by one, singular: `pair`, `image`.
    items : list of dict
        What came of each of them.
    earlier : set of str
        Names that a run before wrote further files of, which this one has not come to yet: where it ends too
        early, the next one still knows that they are its own.
    """

    options: Mapping[str, Any]
    status: str = "failed"
    error: str | None = None
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    input: dict[str, Any] = field(default_factory=dict)
    device: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    detect_seconds: dict[str, float] = field(default_factory=dict)
    unit: str = "pair"
    items: list[dict[str, Any]] = field(default_factory=list)
    earlier: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)

    def add_cells(self, index: int, name: str, cells: CellPoints, seconds: float) -> None:
        """Note a pair that was processed."""
        counts = {
            "background_cells": cells.count(CellClass.BACKGROUND),
            "tumor_cells": cells.count(CellClass.TUMOR),
        }
        self.add_done(index, name, counts, seconds)

    def add_done(self, index: int, name: str, counts: Mapping[str, Any], seconds: float) -> None:
        """Note what was found in something."""
        self.items.append({"index": index, "name": name, **counts, "seconds": round(seconds, 3)})

    def add_failure(self, index: int, name: str, message: str) -> None:
        """Note what failed, or in what cells were found though its further files were not written."""
        for item in self.items:
            if item["index"] == index:
                item["error"] = message
                return
        self.items.append({"index": index, "name": name, "error": message})

    def timed(self, stage: str) -> contextlib.AbstractContextManager[None]:
        """Add a block's wall time to a stage, one stage in one thread at a time."""
        return timed(self.seconds, stage)

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """Note how the block ends, unless it ends well: the block itself says what it then is."""
        try:
            yield
        except KeyboardInterrupt:
            self.status = "interrupted"
            raise
        except Exception as error:
            self.status = "failed"
            self.error = str(as_expected(error))
            raise

    def add_detector(self, asked: str, detector: AnyDetector) -> None:
        """Note the model and the device that it really runs on, of what was asked for, and tell it."""
        self.device = {"asked": asked, "used": detector.device, "notice": detector.notice}
        self.model = model_entry(detector.model)
        _logger.info("%s", detector.notice or f"running on {detector.device}")

    @property
    def failures(self) -> list[dict[str, Any]]:
        """What failed; a pair that has counts of cells lacks only further files."""
        return [item for item in self.items if "error" in item]

    def document(self) -> dict[str, Any]:
        """The record as `run.json` holds it."""
        return {
            "softctm": __version__,
            "status": self.status,
            "error": self.error,
            "started": self.started,
            "seconds": _rounded(dict(self.seconds)),  # a copy: threads add to it
            "detect_seconds": _rounded(self.detect_seconds),
            "options": dict(self.options),
            "device": self.device,
            "model": self.model,
            "input": self.input,
            f"{self.unit}s": self.items,
            **({f"earlier_{self.unit}s": sorted(self.earlier)} if self.earlier else {}),
            "failures": self.failures,
            "warnings": self.warnings,
            "versions": versions(),
            "platform": {"system": platform.platform(), "machine": platform.machine()},
        }


def names_before(path: Path, unit: str) -> list[str] | None:
    """What earlier runs of the same command left files of, by the record; None where there is no such one.

    Parameters
    ----------
    path : Path
        Of a `run.json`.
    unit : str
        See `RunRecord`: it tells the commands apart.
    """
    try:
        document = read_json(path)
        if "softctm" not in document:
            return None
        names = [str(item["name"]) for item in document[f"{unit}s"]]
        return [*names, *map(str, document.get(f"earlier_{unit}s", ()))]
    except (InputError, KeyError, TypeError):
        return None


def model_entry(model: Model) -> dict[str, Any]:
    """Name, version and file hashes of a `softctm.model.Model`."""
    return {
        "name": model.name,
        "version": model.version,
        "task": model.manifest.task,
        "precision": model.precision,
        "licenses": list(model.manifest.licenses),
        "folder": str(model.folder),
        "sha256": model.hashes,
    }


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {stage: round(value, 3) for stage, value in seconds.items()}


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that the result depends on."""
    versions = {"python": sys.version.split()[0]}
    for name in (*_LIBRARIES, *_RUNTIMES):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # of the two runtimes only one is installed
    return versions
