"""The job: from images to tables, outlines and label images of their nuclei, one image after the other."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from softctm.errors import InputError, ModelError, PartialResultError, SoftCTMError
from softctm.inference.detector_options import DetectorOptions
from softctm.jobs import run_record
from softctm.jobs.failures import nothing_done, some
from softctm.jobs.run_record import RunRecord
from softctm.nuclei_table import NucleusType
from softctm.options import option, recorded
from softctm.progress import SILENT, Progress, counted
from softctm.readers.single_images import find_images, read_single_image
from softctm.slides.resolution import check_mpp_option, resolution_warnings
from softctm.storage.files import (
    prepare_folder,
    refuse_foreign_files,
    remove_where_possible,
    write_json_atomically,
)
from softctm.terminal.unexpected import as_expected
from softctm.writers.embedding_files import need_embeddings
from softctm.writers.label_image import LABEL_FILE, write_label_image
from softctm.writers.nuclei_files import ALL_NUCLEI_WRITERS, FURTHER_NUCLEI_WRITERS, NUCLEI_WRITERS
from softctm.writers.slide_formats import require_libraries

if TYPE_CHECKING:
    from softctm.inference.image_detector import ImageDetector
    from softctm.inference.nuclei_image import ImageNuclei

FILES = (LABEL_FILE, *(name for name, _ in ALL_NUCLEI_WRITERS.values()))
"""What is written of each image, in a folder of its name; some of it on request."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NucleiOptions(DetectorOptions):
    """Checked when made; UsageError names what is out of range."""

    quality: str = option(
        "full",
        "networks that are averaged, where the model has several: fast takes 3, balanced and full all; fast "
        "and balanced compute in int8 where it pays and the model has it",
        choices=("fast", "balanced", "full"),
    )
    weights: Path | None = option(
        None,
        "model folder (default: $SOFTCTM_WEIGHTS, else /opt/ml/model if it is one, else "
        "model_weights/nuclei)",
        metavar="DIR",
    )
    views: int | None = None  # no option: distances to a center have a direction, so there is one view
    mpp: float | None = option(
        None, "the images' µm per pixel (default: what the model was trained at)", metavar="UM"
    )
    also: tuple[str, ...] = option(
        (),
        f"further files an image, separated by commas: {', '.join(FURTHER_NUCLEI_WRITERS)} (embeddings: a "
        "vector a nucleus, of CellViT only)",
        metavar="LIST",
        choices=tuple(FURTHER_NUCLEI_WRITERS),
    )
    overwrite: bool = option(False, "replace results in the output folder that another program wrote")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_mpp_option(self.mpp)

    @property
    def embeddings(self) -> bool:
        """Whether any of the files holds embeddings."""
        return need_embeddings(self.also)


@dataclass
class NucleiResult:
    """The outcome of the job.

    Attributes
    ----------
    folder : Path
    record : RunRecord
        What `run.json` says.
    failures : list of exception types
        One an image that failed.
    """

    folder: Path
    record: RunRecord
    failures: list[type[SoftCTMError]] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """One line for the user."""
        done = [item for item in self.record.items if "error" not in item]
        nuclei = sum(item["nuclei"] for item in done)
        return (
            f"{self.folder}: {len(done)} of {counted(len(self.record.items), 'image')}, "
            f"{counted(nuclei, 'nucleus', 'nuclei')}, "
            f"{self.record.seconds.get('total', 0.0):.1f} s"
        )

    def error(self) -> SoftCTMError | None:
        """What is wrong with the result: images are missing, or all are."""
        if not self.failures:
            return None
        failed = self.record.failures
        if len(failed) == len(self.record.items):
            return nothing_done("image", self.failures, str(failed[0]["error"]), run_record.FILE_NAME)
        names = some([str(item["name"]) for item in failed])
        return PartialResultError(
            f"{len(failed)} of {len(self.record.items)} images failed and are missing from {self.folder}: "
            f"{names}; run.json says why"
        )


def run_nuclei_job(
    places: Sequence[Path], output_dir: Path, options: NucleiOptions, progress: Progress = SILENT
) -> NucleiResult:
    """Find the nuclei of images and write `NAME/nuclei.geojson`, `nuclei.csv`, `instances.tif` of each.

    Writes `run.json` in every case that leaves the folder writable.

    Parameters
    ----------
    places : sequence of Path
        Images, and folders of images; see `softctm.readers.single_images.find_images`.
    output_dir : Path
        Created where it is missing.
    options : NucleiOptions
        The user's choices.
    progress : Progress
        Gets a step an image, and a step a field of large ones.

    Raises
    ------
    InputError, ModelError, DeviceError, OutputError
        If the job as a whole fails, or no image could be processed.
    PartialResultError
        If the result lacks an image.
    MissingPackageError
        If a library is missing that writes one of the files.
    KeyboardInterrupt
        If it was interrupted, after `run.json` has been written.
    """
    start = time.perf_counter()
    record = RunRecord({**recorded(options), "views": 1}, unit="image")
    result = NucleiResult(output_dir, record)
    images = find_images(places)
    if run_record.FILE_NAME in images:
        file = images[run_record.FILE_NAME]
        raise InputError(f"{file}: its results would take the name of {run_record.FILE_NAME}; rename it")
    require_libraries(options.also)
    prepare_folder(output_dir)
    record_file = output_dir / run_record.FILE_NAME
    refuse_foreign_files(
        (record_file, *(output_dir / name / file for name in images for file in FILES)),
        "nuclei",
        lambda _: run_record.names_before(record_file, record.unit) is not None,
        options.overwrite,
    )
    record.input = {"places": [str(place) for place in places], "images": len(images)}
    record.status = "unfinished"  # what lies there if the process is killed: the results are ours
    write_json_atomically(record_file, record.document(), indent=1)
    try:
        with record.ending():
            with record.timed("load_model"):
                detector = load_nuclei_detector(options)
            _logger.info("%s, model %s", counted(len(images), "image"), detector.model.name)
            record.add_detector(options.device, detector)
            _find(images, detector, options, result, progress)
            lack = result.error()
            if lack is not None and not isinstance(lack, PartialResultError):
                raise lack
            record.status = "partial" if lack else "complete"
    finally:
        record.seconds["total"] = time.perf_counter() - start
        write_json_atomically(record_file, record.document(), indent=1)
    if lack is not None:
        raise lack
    return result


def load_nuclei_detector(options: NucleiOptions) -> ImageDetector:
    """The networks that `options` ask for.

    Raises
    ------
    ModelError
        If the model is of another task, or cannot be used, or embeddings are asked for and cannot be made.
    DeviceError
        As `softctm.inference.load.open_detector`.
    """
    from softctm.inference.load import open_detector  # slow to import: bad input is told before
    from softctm.inference.nuclei_image import token_stride

    detector: ImageDetector = open_detector(options, "nuclei")
    if options.embeddings:
        token_stride(detector.model)
    return detector


def _find(
    images: dict[str, Path],
    detector: ImageDetector,
    options: NucleiOptions,
    result: NucleiResult,
    progress: Progress,
) -> None:
    """Process every image; a failure is noted and told, and does not stop the others."""
    from softctm.inference.nuclei_image import find_nuclei, model_mpp, nucleus_types

    record, types, own_mpp = result.record, nucleus_types(detector.model), model_mpp(detector.model)
    mpp = options.mpp or own_mpp
    record.input["mpp"] = mpp
    if options.mpp is None:
        _logger.info("images are taken to have %g µm per pixel, the model's; give another with --mpp", mpp)
    record.warnings += resolution_warnings("--mpp", mpp, own_mpp)
    for warning in record.warnings:
        _logger.warning("%s", warning)
    with progress.task(len(images), "image") as task:
        for index, (name, path) in enumerate(images.items()):
            begin, folder = time.perf_counter(), result.folder / name
            try:
                with record.timed("read"):
                    image = read_single_image(path)
                with record.timed("detect"):
                    found = find_nuclei(
                        detector,
                        image,
                        mpp=mpp,
                        embeddings=options.embeddings,
                        progress=progress,
                        name=name,
                    )
                with record.timed("write"):
                    _write(folder, found, types, mpp, options.also)
            except ModelError:  # of the model, and so of every image
                raise
            except Exception as error:
                expected = as_expected(error)
                message = str(expected) if str(path) in str(expected) else f"{path}: {expected}"
                result.failures.append(type(expected))
                record.add_failure(index, name, message)
                # Tracebacks hold the image: only where somebody wants them.
                wanted = error if _logger.isEnabledFor(logging.DEBUG) else None
                _logger.warning("%s", message, exc_info=wanted)
                remove_where_possible(folder / file for file in FILES)
                task.step(f"{name}: failed")
            else:
                counts = Counter(types[kind].name for kind in found.nuclei.table.type.tolist())
                entry = {"file": str(path), "nuclei": len(found.nuclei), "types": dict(counts)}
                record.add_done(index, name, entry, time.perf_counter() - begin)
                task.step(f"{name}: {counted(len(found.nuclei), 'nucleus', 'nuclei')}")


def _write(
    folder: Path, found: ImageNuclei, types: Sequence[NucleusType], mpp: float, also: Sequence[str]
) -> None:
    prepare_folder(folder)
    # No earlier run's files stay beside those of this one, which says otherwise.
    unwanted = [file for name, (file, _) in FURTHER_NUCLEI_WRITERS.items() if name not in also]
    remove_where_possible(folder / file for file in unwanted)
    for file_name, writer in (ALL_NUCLEI_WRITERS[name] for name in (*NUCLEI_WRITERS, *also)):
        with writer(folder / file_name, types) as file:
            file.add(found.nuclei, scale=found.scale)
    write_label_image(folder / LABEL_FILE, found.instances, mpp=mpp)
