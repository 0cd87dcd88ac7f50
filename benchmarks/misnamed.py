"""Where cells are named wrongly out of fold, and whether the annotations there contradict each other.

    python -m benchmarks.misnamed --data DATA --weights MODEL [--views 1] [--json FILE]

Every pair is predicted by the networks that held out its fold. A found cell is compared with the nearest
annotated one within 3 µm. A pair is doubtful where more than half of at least 20 found cells have another
name than annotated. There, either the networks are wrong or the annotation is: the annotated tissue, drawn
by itself, is the third opinion. It agrees with an annotated tumor cell where it is cancer area, and with a
background cell where it is not.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from softctm.datasets.ocelot import TISSUE_CANCER, TISSUE_UNKNOWN, AnnotatedPair, load_release
from softctm.inference.detector import Detector
from softctm.jobs.validation import prepare_validation
from softctm.model import load_model
from softctm.pair import WINDOW_SIZE, ZOOM
from softctm.points import CellClass, CellPoints
from softctm.readers.geometry import tissue_window

MAX_DISTANCE_PX = 15
MIN_CELLS = 20
DOUBTFUL_SHARE = 0.5


@dataclass(frozen=True)
class Naming:
    """One pair's names.

    Attributes
    ----------
    pair, patient, organ : str
    compared, misnamed : int
        Found cells that have an annotated one beside them, and those of them with another name.
    agreement : float
        Share of annotated cells on known tissue that the annotated tissue agrees with; NaN where none is.
    """

    pair: str
    patient: str
    organ: str
    compared: int
    misnamed: int
    agreement: float

    @property
    def is_doubtful(self) -> bool:
        """Whether most of enough cells have another name."""
        return self.compared >= MIN_CELLS and self.misnamed > DOUBTFUL_SHARE * self.compared


def compare_names(found: CellPoints, true: CellPoints) -> tuple[int, int]:
    """How many found cells have an annotated one within reach, and how many of those another name than it."""
    if not len(found) or not len(true):
        return 0, 0
    tree = KDTree(np.stack([true.x, true.y], 1))
    distance, nearest = tree.query(np.stack([found.x, found.y], 1))
    within = distance <= MAX_DISTANCE_PX
    return int(within.sum()), int((true.label[nearest] != found.label)[within].sum())


def tissue_agreement(true: CellPoints, window: NDArray[np.uint8]) -> float:
    """Share of annotated cells whose class is that of the annotated tissue around them; see `Naming`.

    Parameters
    ----------
    true : CellPoints
    window : (256, 256) uint8
        Tissue labels where the cell patch lies.
    """
    labels = window[true.y // ZOOM, true.x // ZOOM]
    known = labels != TISSUE_UNKNOWN
    if not known.any():
        return float("nan")
    agrees = (labels == TISSUE_CANCER) == (true.label == CellClass.TUMOR)
    return float(agrees[known].mean())


def naming_of(detector: Detector, pair: AnnotatedPair) -> Naming:
    """Predict one pair and compare its names."""
    true, place = pair.cells(), tissue_window(pair.metadata, pair.id)
    window = pair.tissue_labels()[place.y : place.y + WINDOW_SIZE, place.x : place.x + WINDOW_SIZE]
    compared, misnamed = compare_names(detector(pair.read()), true)
    agreement = tissue_agreement(true, window)
    return Naming(pair.id, pair.patient, pair.organ, compared, misnamed, agreement)


def summary(namings: list[Naming]) -> str:
    """The findings as text."""
    compared, misnamed = (sum(getattr(n, name) for n in namings) for name in ("compared", "misnamed"))
    doubtful = [naming for naming in namings if naming.is_doubtful]
    held = sum(naming.misnamed for naming in doubtful)
    agreeing = sum(naming.agreement >= DOUBTFUL_SHARE for naming in doubtful)
    lines = [
        f"{misnamed} of {compared} found cells are misnamed ({misnamed / max(compared, 1):.3f})",
        f"{len(doubtful)} of {len(namings)} pairs, of {len({n.patient for n in doubtful})} patients, "
        f"are doubtful and hold {held / max(misnamed, 1):.2f} of the misnamed cells",
        f"in {agreeing} of these pairs the annotated tissue agrees with most annotated cells",
    ]
    for naming in sorted(doubtful, key=lambda one: -one.misnamed):
        lines.append(
            f"{naming.pair}  {naming.patient}  {naming.organ:<14}{naming.misnamed:>4} of "
            f"{naming.compared:<4} misnamed; tissue agrees with {naming.agreement:.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Predict all pairs out of fold and print where names are wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--views", type=int, default=1, choices=(1, 2, 4, 8))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    validation = prepare_validation(load_model(args.weights), load_release(args.data), args.data, args.views)
    namings = []
    for fold in sorted(set(validation.fold_of)):
        detector = Detector(validation.model.held_out(fold), views=args.views)
        chosen = [pair for pair, own in zip(validation.pairs, validation.fold_of, strict=True) if own == fold]
        namings += [naming_of(detector, pair) for pair in chosen]
        print(f"fold {fold} is counted", flush=True)
    print(summary(namings))
    if args.json:
        args.json.write_text(json.dumps([asdict(naming) for naming in namings], indent=1) + "\n")


if __name__ == "__main__":
    main()
