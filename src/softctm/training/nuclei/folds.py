"""Folds of images with nuclei: assigned, stored in a run's folder, and what each of them holds out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softctm.datasets.patient_folds import DEFAULT_FOLDS, assign_evenly
from softctm.datasets.patients import patient_of_image
from softctm.errors import InputError, UsageError
from softctm.training.nuclei.data import TrainingImage
from softctm.training.run_folder import check_fold, read_run_file

ALL = "all"
"""Instead of a fold: hold out nothing."""


def read_image_folds(path: Path, images: Sequence[TrainingImage]) -> list[int]:
    """The fold of every image, in their order, from a run's `folds.json`.

    Raises
    ------
    InputError
        If the file cannot be read, or lacks an image.
    """
    found = read_run_file(path).get("images", {})
    missing = [image.name for image in images if not isinstance(found.get(image.name), int)]
    if missing:
        raise InputError(f"{path}: has no fold for {missing[0]} and {len(missing) - 1} others")
    return [found[image.name] for image in images]


def split_by_fold(
    images: Sequence[TrainingImage], folds: Sequence[int], fold: int | None
) -> tuple[list[TrainingImage], list[TrainingImage]]:
    """The images that a network learns from, and those that it holds out; with None it holds out none.

    Raises
    ------
    UsageError
        As `check_fold`.
    """
    check_fold(fold, folds)
    learned = [image for image, own in zip(images, folds, strict=True) if own != fold]
    return learned, [image for image, own in zip(images, folds, strict=True) if own == fold]


def default_folds(images: Sequence[TrainingImage]) -> int:
    """How many folds there are if nobody says: the usual number, or one a patient."""
    return min(DEFAULT_FOLDS, len({patient_of_image(image.name) for image in images}))


def nuclei_folds(
    images: Sequence[TrainingImage],
    types: int,
    count: int,
    seed: int,
    known: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Assign images to folds that are alike in nuclei of each type and images of each data set.

    Images of one TCGA patient stay together, whatever slide or dataset they are of; of other images the
    patient is not known. `known` images, and others of their patients, keep their folds.

    Raises
    ------
    UsageError
        If there are fewer patients than folds, or a known patient is in two.
    """
    known = known or {}
    groups: dict[str, list[TrainingImage]] = {}
    for image in images:
        groups.setdefault(patient_of_image(image.name), []).append(image)
    # Folds that were held out before, of images that are not here, may stay empty.
    least, most = (1, count) if known else (min(2, len(groups)), len(groups))
    if not least <= count <= most:
        raise UsageError(
            f"--folds {count}: {len(groups)} images of different patients cannot be split into so many"
        )
    sources = sorted({image.name.split("/")[0] for image in images})
    traits = {
        name: np.sum([_traits(image, types, sources) for image in part], axis=0)
        for name, part in groups.items()
    }
    kept: dict[str, int] = {}
    for image_name, fold in known.items():
        name = patient_of_image(image_name)
        if name in groups and kept.setdefault(name, fold) != fold:
            raise UsageError(f"{name}: in two folds of the networks to start from; train with --all-images")
    fold_of: Mapping[str, int] = assign_evenly(traits, count, seed, kept)
    return {image.name: fold_of[name] for name, part in groups.items() for image in part}


def _traits(image: TrainingImage, types: int, sources: Sequence[str]) -> NDArray[np.float64]:
    """Images of each data set, nuclei of each type, nuclei of none."""
    ids = np.unique(image.instances)
    kinds = image.type_of[ids[ids > 0]]
    source = [image.name.split("/")[0] == name for name in sources]
    return np.array([*source, *np.bincount(kinds[kinds > 0], minlength=types)[1:], (kinds < 0).sum()], float)
