"""Tissue maps against the tissue annotation, by pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.datasets.dataset_images import read_label_image
from softctm.datasets.ocelot import TISSUE_BACKGROUND, TISSUE_CANCER, TISSUE_UNKNOWN, tissue_labels_of
from softctm.errors import InputError
from softctm.evaluation.bootstrap import Bootstrap, Estimate
from softctm.evaluation.scores import FN, FP, TP, precision_recall_f1, ratio
from softctm.evaluation.truth import GroundTruth
from softctm.pair import PATCH_SIZE

SCORED_TISSUE = {"background": TISSUE_BACKGROUND, "cancer": TISSUE_CANCER}
"""The classes that are scored, with their values in the annotation, in the order of every class axis."""


@dataclass(frozen=True)
class TissueScore:
    """Pixels of all pairs, or of one organ's.

    Attributes
    ----------
    name : str
        `all` or the organ.
    pairs : int
        Pairs that have both an annotation and a predicted map.
    counts : (2, 3) int64
        TP, FP and FN in pixels, of background and of cancer area; annotated unknown ignored.
    figures : mapping of str to Estimate
        `precision_background`, `recall_background`, `f1_background`, `iou_background`, the same of `cancer`,
        `mean_f1`, `mean_iou`, and `accuracy`.
    """

    name: str
    pairs: int
    counts: NDArray[np.int64]
    figures: Mapping[str, Estimate]


def tissue_counts(predicted: NDArray[np.uint8], annotated: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the pixels of one pair.

    Parameters
    ----------
    predicted, annotated : (H, W) uint8
        1 background, 2 cancer area, 255 unknown. Annotated unknown is ignored; predicted unknown is FN.

    Returns
    -------
    (2, 3) int64
        Rows background, cancer area; columns TP, FP, FN.
    """
    known = annotated != TISSUE_UNKNOWN
    counts = np.empty((len(SCORED_TISSUE), 3), np.int64)
    for i, value in enumerate(SCORED_TISSUE.values()):
        claimed, actual = (predicted == value) & known, annotated == value
        tp = np.count_nonzero(claimed & actual)
        counts[i] = tp, np.count_nonzero(claimed) - tp, np.count_nonzero(actual) - tp
    return counts


def read_tissue_map(path: Path) -> NDArray[np.uint8]:
    """Read a predicted map.

    Parameters
    ----------
    path : Path
        An 8-bit gray or palette PNG of 1, 2 and 255 as in the annotation, or an `.npy` array of probabilities
        (2 or 3, 1024, 1024).

    Raises
    ------
    InputError
        If it is neither.
    """
    found: NDArray[Any] = _array(path) if path.suffix == ".npy" else read_label_image(path)
    size = (PATCH_SIZE, PATCH_SIZE)
    if path.suffix == ".npy":
        if (
            found.ndim != 3
            or found.shape[0] not in (2, 3)
            or found.shape[1:] != size
            or found.dtype.kind != "f"
        ):
            raise InputError(
                f"{path}: must hold probabilities (2 or 3, {PATCH_SIZE}, {PATCH_SIZE}), not "
                f"{found.dtype} {found.shape}"
            )
        if not np.isfinite(found).all():
            raise InputError(f"{path}: holds NaN or infinity; write it anew")
        return tissue_labels_of(found)
    if found.shape != size or found.dtype != np.uint8:
        raise InputError(
            f"{path}: must be an 8-bit image of {PATCH_SIZE} × {PATCH_SIZE} with one channel, not "
            f"{found.dtype} {found.shape}"
        )
    strange = sorted(set(np.unique(found).tolist()) - {TISSUE_BACKGROUND, TISSUE_CANCER, TISSUE_UNKNOWN})
    if strange:
        raise InputError(
            f"{path}: pixels must be 1 (background), 2 (cancer area) or 255 (unknown), found {strange[:5]}"
        )
    return np.asarray(found, np.uint8)


def _array(path: Path) -> NDArray[Any]:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error}); write it anew") from None
    if not isinstance(found, np.ndarray):
        raise InputError(f"{path}: is an archive of arrays, not one array; write it by numpy.save")
    return found


def find_tissue_maps(folder: Path, truth: GroundTruth) -> list[Path | None]:
    """Find each pair's predicted map, `<name>.png`, `<name>.npy`, `image_<i>.png` or `image_<i>.npy`.

    Raises
    ------
    InputError
        If there is none at all, or two for one pair.
    """
    maps: list[Path | None] = []
    for i, pair in enumerate(truth.pairs):
        stems = dict.fromkeys((pair.name, f"image_{i}"))
        found = [
            path for stem in stems for end in (".png", ".npy") if (path := folder / (stem + end)).is_file()
        ]
        if len(found) > 1:
            raise InputError(f"{folder}: {' and '.join(p.name for p in found)} are one pair's map; keep one")
        maps.append(found[0] if found else None)
    if not any(maps):
        raise InputError(
            f"{folder}: no tissue map in it; it must hold {truth.names[0]}.png, or image_0.png, and so on "
            "(or .npy with probabilities)"
        )
    return maps


def tissue_scores(maps: Sequence[Path | None], truth: GroundTruth, bootstrap: Bootstrap) -> list[TissueScore]:
    """Score all pairs with both an annotation and a map: `all` first, then by organ."""
    counts = np.zeros((len(truth), len(SCORED_TISSUE), 3), np.int64)
    scored = np.zeros(len(truth), bool)
    for i, (pair, path) in enumerate(zip(truth.pairs, maps, strict=True)):
        if path is not None and pair.annotated is not None and pair.has_tissue:
            counts[i] = tissue_counts(read_tissue_map(path), pair.annotated.tissue_labels())
            scored[i] = True
    if not scored.any():
        raise InputError(f"{truth.source}: none of its pairs has both a tissue annotation and a tissue map")
    groups = {"all": scored}
    for organ in truth.organs:
        member = scored & np.array([pair.organ == organ for pair in truth.pairs])
        if member.any():
            groups[organ] = member
    return [_score(name, member, counts, bootstrap) for name, member in groups.items()]


def _score(
    name: str, member: NDArray[np.bool_], counts: NDArray[np.int64], bootstrap: Bootstrap
) -> TissueScore:
    """Score one group of pairs."""
    within = np.where(member[:, None, None], counts, 0)
    return TissueScore(
        name, int(member.sum()), within.sum(axis=0), bootstrap.estimates(within, tissue_figures)
    )


def tissue_figures(counts: NDArray[np.int64] | NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """All figures of pixel counts (…, 2, 3), NaN where there is nothing to divide by; see `TissueScore`."""
    precision, recall, f1 = precision_recall_f1(counts, undefined=np.nan)
    tp = np.asarray(counts[..., TP], np.float64)
    iou = ratio(tp, tp + counts[..., FP] + counts[..., FN], np.nan)
    named: dict[str, NDArray[np.float64]] = {}
    for i, name in enumerate(SCORED_TISSUE):
        named |= {
            f"precision_{name}": precision[..., i],
            f"recall_{name}": recall[..., i],
            f"f1_{name}": f1[..., i],
            f"iou_{name}": iou[..., i],
        }
    named |= {"mean_f1": f1.mean(axis=-1), "mean_iou": iou.mean(axis=-1)}
    known = tp.sum(axis=-1) + np.asarray(counts[..., FN], np.float64).sum(axis=-1)
    return named | {"accuracy": ratio(tp.sum(axis=-1), known, np.nan)}
