"""The nuclei of an image of any size: resampled to the model's scale, field by field, joined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from softctm.errors import InputError, ModelError
from softctm.inference.image_detector import ImageDetector
from softctm.model.model import Model
from softctm.nuclei_table import NucleiTable, NucleusType, tabulate, types_named
from softctm.postprocessing.embeddings import nuclei_embeddings
from softctm.postprocessing.field_lattice import Field, FieldLattice
from softctm.postprocessing.fields import FieldNuclei, join_fields
from softctm.postprocessing.hover import TOKEN_HEAD, TYPE_HEAD, SeparatedNuclei, classify_nuclei, has_outline
from softctm.postprocessing.measured_nuclei import MeasuredNuclei, measured_nuclei
from softctm.progress import SILENT, Progress

_MAX_PIXELS = 500_000_000
"""Most that an image may have at the model's scale: a map of 2 GB."""


@dataclass(frozen=True, eq=False)
class ImageNuclei:
    """What was found in an image.

    Attributes
    ----------
    instances : (H, W) int32
        0 background, else a nucleus' id, in the image's own pixels.
    nuclei : MeasuredNuclei
        All of them, in pixels of the model's scale. A nucleus' embedding is that of the field that it was
        taken from.
    scale : (float, float)
        The image's own pixels per such pixel, along x and y.
    """

    instances: NDArray[np.int32]
    nuclei: MeasuredNuclei
    scale: tuple[float, float]


@dataclass(frozen=True, eq=False)
class LocatedNuclei:
    """The nuclei of an image as the model sees it, before anything is measured.

    Attributes
    ----------
    image : (H, W, 3) uint8
        Resampled to the model's scale.
    instances : (H, W) int32
        0 background, else a nucleus' number; some of them may be missing in the table.
    table : NucleiTable
    scale : (float, float)
        The given image's pixels per pixel of this one, along x and y.
    embeddings : (N, D) float16, or None where they were not asked for
        In the table's order.
    """

    image: NDArray[np.uint8]
    instances: NDArray[np.int32]
    table: NucleiTable
    scale: tuple[float, float]
    embeddings: NDArray[np.float16] | None


def nucleus_types(model: Model) -> tuple[NucleusType, ...]:
    """The types of a model of nuclei, by number."""
    (stage,) = model.stages.values()
    (head,) = (head for head in stage.heads if head.name == TYPE_HEAD)
    return types_named(head.classes[1:])


def model_mpp(model: Model) -> float:
    """µm per pixel of the images that a model of one stage sees."""
    (stage,) = model.stages.values()
    return stage.input.mpp


def token_stride(model: Model) -> int:
    """Pixels a side that one of a model's tokens stands for.

    Raises
    ------
    ModelError
        If embeddings cannot be made: the model gives no tokens, or averages networks.
    """
    (stage,) = model.stages.values()
    strides = [head.stride for head in stage.heads if head.name == TOKEN_HEAD]
    if not strides:
        raise ModelError(
            f"{model.folder}: gives no tokens to make embeddings of, as CellViT does; take such a model with "
            "--weights, or leave embeddings out"
        )
    if len(stage.networks) > 1:
        raise ModelError(
            f"{model.folder}: averages {len(stage.networks)} networks, whose tokens have nothing in common; "
            "embeddings need a model of one network: leave them out, or export one"
        )
    return strides[0]


def find_nuclei(
    detector: ImageDetector,
    image: NDArray[np.uint8],
    *,
    mpp: float | None = None,
    embeddings: bool = False,
    progress: Progress = SILENT,
    name: str = "",
) -> ImageNuclei:
    """Find the nuclei of an image, with outlines and measurements.

    Parameters
    ----------
    detector : ImageDetector
        Of a model of the task "nuclei".
    image : (H, W, 3) uint8
    mpp : float, optional
        Its µm per pixel; by default the model's. Where they differ, the model sees the image resampled
        (bicubic, with averaging where it becomes smaller).
    embeddings : bool
        Whether to make embeddings of the nuclei as well.
    progress : Progress
        Gets a step a field, where there are several.
    name : str
        The image's, for the progress.

    Raises
    ------
    InputError
        If the image has too many pixels at the model's scale.
    PairError, ModelError, DeviceError
        As `ImageDetector.__call__`; ModelError also as `token_stride`.
    """
    found = locate_nuclei(detector, image, mpp=mpp, embeddings=embeddings, progress=progress, name=name)
    instances, (height, width) = found.instances, image.shape[:2]
    rows, columns = instances.shape
    nuclei = measured_nuclei(found.image, instances, found.table, mpp=model_mpp(detector.model))
    nuclei = replace(nuclei, embeddings=found.embeddings)
    if (rows, columns) != (height, width):
        instances = instances[_nearest(height, rows)[:, None], _nearest(width, columns)]
        # Of an image coarser than the model's scale, a nucleus may cover no pixel's center.
        stays = np.isin(nuclei.table.id, instances)
        nuclei = nuclei.where(stays)
    listed = np.zeros(int(instances.max(initial=0)) + 1, np.int32)
    listed[nuclei.table.id] = nuclei.table.id
    return ImageNuclei(listed[instances], nuclei, found.scale)


def locate_nuclei(
    detector: ImageDetector,
    image: NDArray[np.uint8],
    *,
    mpp: float | None = None,
    embeddings: bool = False,
    progress: Progress = SILENT,
    name: str = "",
) -> LocatedNuclei:
    """Find the nuclei of an image, where and of which type; parameters and errors as `find_nuclei`."""
    stride = token_stride(detector.model) if embeddings else None
    seen = _resampled(image, 1.0 if mpp is None else mpp / model_mpp(detector.model))
    rows, columns = seen.shape[:2]
    fields = list(_fields(detector, seen, stride, progress, name))
    instances, table, source = join_fields((field for field, _ in fields), columns, rows)
    table = as_in(instances, table)
    vectors = [part for _, part in fields if part is not None]
    joined = np.concatenate(vectors)[source[table.id - 1]] if embeddings else None
    scale = image.shape[1] / columns, image.shape[0] / rows
    return LocatedNuclei(seen, instances, table, scale, joined)


def _fields(
    detector: ImageDetector,
    image: NDArray[np.uint8],
    stride: int | None,
    progress: Progress,
    name: str,
) -> Iterator[tuple[FieldNuclei, NDArray[np.float16] | None]]:
    """See `field_nuclei`, field by field."""
    height, width = image.shape[:2]
    fields = FieldLattice.for_networks(width, height, detector.size)
    with (progress if len(fields) > 1 else SILENT).task(len(fields), "field", name) as task:
        for field in fields:
            left, top, right, bottom = field.box
            yield field_nuclei(detector, field, image[top:bottom, left:right], stride)
            task.step()


def field_nuclei(
    detector: ImageDetector, field: Field, image: NDArray[np.uint8], stride: int | None = None
) -> tuple[FieldNuclei, NDArray[np.float16] | None]:
    """The nuclei of one field, of which `image` (H, W, 3) shows the box; errors as `ImageDetector`'s.

    With the stride of tokens, their embeddings too.
    """
    found: SeparatedNuclei = detector(image)
    table = classify_nuclei(found.instances, found.types)
    embeddings = None
    if stride is not None:
        assert found.tokens is not None  # the manifest names them
        embeddings = nuclei_embeddings(found.tokens, found.instances, table, stride=stride)
    return FieldNuclei(field, found.instances, table), embeddings


def as_in(instances: NDArray[np.integer], table: NucleiTable) -> NucleiTable:
    """The nuclei of a joined map with place and size as they are there, where they may have lost pixels.

    Parameters
    ----------
    instances : (H, W) integer
        Some or all nuclei of the table.
    table : NucleiTable
        Ids are 1 … N. What is left of a nucleus and has no outline is left out.
    """
    placed = tabulate(instances, np.zeros(instances.shape, np.uint8))
    placed = placed.where(has_outline(placed))
    row = placed.id - 1
    return replace(placed, type=table.type[row], type_probability=table.type_probability[row])


def _resampled(image: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """The image with `factor` times as many pixels per side."""
    height, width = image.shape[:2]
    size = max(1, round(width * factor)), max(1, round(height * factor))
    if size == (width, height):
        return image
    if size[0] * size[1] > _MAX_PIXELS:
        raise InputError(
            f"{width} × {height} pixels become {size[0]} × {size[1]} at the model's scale, too many; check "
            "--mpp, or cut the image into smaller ones"
        )
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _nearest(length: int, source: int) -> NDArray[np.intp]:
    """For each of `length` pixels the one of `source` in which its center lies."""
    place: NDArray[np.intp] = ((np.arange(length) + 0.5) * (source / length)).astype(np.intp)
    return np.minimum(place, source - 1)
