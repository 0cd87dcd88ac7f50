"""What predictions are compared with: an OCELOT release's annotations, or the challenge's `cell_gt.json`."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from softctm.datasets.ocelot import AnnotatedPair, load_release
from softctm.datasets.patients import TCGA_PATIENTS, PatientKey, odd_slide_names
from softctm.errors import InputError, UsageError
from softctm.evaluation.predictions import points_by_pair
from softctm.points import CellPoints
from softctm.readers.images import list_images
from softctm.storage.text_files import read_json

SUBSETS = ("train", "val", "test")
"""The subsets of an OCELOT release."""


@dataclass(frozen=True)
class GroundTruthPair:
    """One pair of the truth.

    Attributes
    ----------
    name : str
        The release's ID (`042`), or `image_<i>` for a `cell_gt.json`.
    points : CellPoints
        The annotated cells; their scores are 1.
    annotated : AnnotatedPair or None
        Where a release's images, tissue annotation and metadata lie; None for a `cell_gt.json`.
    """

    name: str
    points: CellPoints
    annotated: AnnotatedPair | None = None

    @property
    def organ(self) -> str | None:
        """The organ, where it is known."""
        return self.annotated.organ if self.annotated else None

    @property
    def patient(self) -> str | None:
        """The patient, where it is known."""
        return (self.annotated.patient or None) if self.annotated else None

    @property
    def has_tissue(self) -> bool:
        """Whether there is a tissue annotation."""
        return self.annotated is not None and self.annotated.tissue_png.is_file()


@dataclass(frozen=True)
class GroundTruth:
    """The truth of a run: pair i is what predictions call `image_<i>`; `warnings` say what was left out."""

    pairs: tuple[GroundTruthPair, ...]
    source: str
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def names(self) -> list[str]:
        """The pairs' names, in order."""
        return [pair.name for pair in self.pairs]

    @property
    def units(self) -> list[str]:
        """What resamples draw each pair with: its patient; the pair itself where that is unknown."""
        return [pair.patient or f"pair {pair.name}" for pair in self.pairs]

    @property
    def unit(self) -> str:
        """What those are: `patients`, `pairs` where none is known, `patients and pairs` where some are."""
        known = [bool(pair.patient) for pair in self.pairs]
        return "patients" if all(known) else "patients and pairs" if any(known) else "pairs"

    @property
    def can_be_resampled(self) -> bool:
        """Whether there are two of them: a single one says nothing about others."""
        return len(set(self.units)) > 1

    @cached_property
    def points(self) -> list[CellPoints]:
        """The annotated cells of each pair."""
        return [pair.points for pair in self.pairs]

    @property
    def organs(self) -> list[str]:
        """The organs that occur, sorted; empty where they are unknown."""
        return sorted({pair.organ for pair in self.pairs if pair.organ is not None})


def load_truth(
    path: Path,
    subset: str | None = None,
    ids: Sequence[str] | None = None,
    patient_key: PatientKey = TCGA_PATIENTS,
) -> GroundTruth:
    """Read the truth.

    Parameters
    ----------
    path : Path
        Folder of an OCELOT release, or a `cell_gt.json` with `num_images`.
    subset : str, optional
        Subset of the release; needed unless it has only one.
    ids : sequence of str, optional
        IDs of the release, in the order that `image_0`, `image_1`, … stand for; by default all of the
        subset's, sorted. For predictions of a part, a fold for instance.
    patient_key : PatientKey
        How to tell a release's patients, whose pairs intervals keep together.

    Raises
    ------
    InputError
        If the truth is missing or malformed.
    UsageError
        If `subset` or `ids` do not fit it.
    """
    path = Path(path)
    if path.is_dir():
        return _release_truth(path, subset, ids, patient_key)
    if subset is not None or ids is not None or patient_key.text:
        raise UsageError(
            f"subset, IDs and patient key are for the pairs of an OCELOT release, but {path} is not a folder"
        )
    return _json_truth(path)


def _json_truth(path: Path) -> GroundTruth:
    """Read a `cell_gt.json`."""
    document = read_json(path)
    count = document.get("num_images") if isinstance(document, dict) else None
    if type(count) is not int or count < 1:
        raise InputError(
            f"{path}: num_images must be the number of pairs, which the points alone do not tell; add it"
        )
    pairs = (
        GroundTruthPair(f"image_{i}", points)
        for i, points in enumerate(points_by_pair(document, count, path))
    )
    return GroundTruth(tuple(pairs), str(path))


def _release_truth(
    folder: Path, subset: str | None, ids: Sequence[str] | None, patient_key: PatientKey
) -> GroundTruth:
    """Read the annotations of a release."""
    if subset is None:
        present = [name for name in SUBSETS if (folder / "annotations" / name / "cell").is_dir()]
        if not present:
            raise InputError(f"{folder}: no annotations/<subset>/cell in it; give an OCELOT release's folder")
        if len(present) > 1:
            raise UsageError(f"{folder} has the subsets {', '.join(present)}; choose one with --subset")
        subset = present[0]
    annotated = {pair.id: pair for pair in load_release(folder, subset, patient_key)}
    warnings = []
    if ids is None:
        for name in _without_images(folder, subset, set(annotated)):
            warnings.append(name)
            del annotated[name]
        if warnings:
            listed = ", ".join(warnings[:5]) + (f" and {len(warnings) - 5} more" if len(warnings) > 5 else "")
            warnings = [
                f"{folder}: lists pairs of '{subset}' without images ({listed}); they are left out and not "
                "counted"
            ]
    else:
        unknown = [name for name in ids if name not in annotated]
        if unknown:
            raise UsageError(
                f"{folder}: its subset '{subset}' has no pair {', '.join(unknown)}; correct the IDs"
            )
        if not ids or len(set(ids)) < len(ids):
            raise UsageError("the list of IDs is empty or names a pair twice; each counts once, in order")
        annotated = {name: annotated[name] for name in ids}
    warnings += _doubts_about_patients(folder, list(annotated.values()), patient_key)
    pairs = tuple(GroundTruthPair(name, pair.cells(), pair) for name, pair in annotated.items())
    return GroundTruth(pairs, f"{folder} ({subset})", tuple(warnings))


def _doubts_about_patients(
    folder: Path, pairs: Sequence[AnnotatedPair], patient_key: PatientKey
) -> list[str]:
    """Warnings about patients, whom resamples keep together.

    Raises
    ------
    UsageError
        If the key that was given tells no patient at all.
    """
    unknown = [pair.id for pair in pairs if not pair.patient]
    if patient_key.text and len(unknown) == len(pairs):
        raise UsageError(
            f"--patient-key {patient_key.text}: tells no patient in {folder}; name a field of metadata.json, "
            "or a pattern that is found in slide_name"
        )
    warnings = [odd_slide_names([(pair.patient, pair.metadata.get("slide_name")) for pair in pairs])]
    if unknown:
        warnings.append(
            f"{folder}: the patient of {len(unknown)} of {len(pairs)} pairs is unknown ({unknown[0]}, for "
            "instance); intervals take each of these for a patient of its own"
        )
    return [warning for warning in warnings if warning]


def _without_images(folder: Path, subset: str, known: set[str]) -> list[str]:
    """Known pairs that have no image, sorted; none where there are no images at all.

    `image_<i>` counts the images that are there, as predictions do. Without any, the metadata alone decide.

    Raises
    ------
    InputError
        If files are there that the metadata do not list: then `image_<i>` would not mean the same.
    """
    annotated = {
        unicodedata.normalize("NFC", path.stem)
        for path in (folder / "annotations" / subset / "cell").glob("[!.]*.csv")
    }
    composed = {unicodedata.normalize("NFC", name): name for name in known}
    places = [place for kind in ("cell", "tissue") if (place := folder / "images" / subset / kind).is_dir()]
    pictured = {stem for place in places for stem in list_images(place, str(place))[0]}
    for kind, odd in (
        ("annotated but not in metadata.json", annotated - composed.keys()),
        ("in the images but not in metadata.json", pictured - composed.keys()),
    ):
        if odd:
            listed = ", ".join(sorted(odd)[:5]) + (f" and {len(odd) - 5} more" if len(odd) > 5 else "")
            raise InputError(
                f"{folder}: {kind} of '{subset}': {listed}; which pair is image_<i> is uncertain, "
                "so make them agree"
            )
    return sorted(name for form, name in composed.items() if pictured and form not in pictured)
