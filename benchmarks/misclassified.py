"""Where cells get the wrong class out of fold, and whether the annotations there contradict each other.

    python -m benchmarks.misclassified --data DATA --weights MODEL [--weights MODEL …] [--views 1] \
        [--json FILE] [--pair-weights FILE]

Every pair is predicted by the networks that held out its fold. A found cell is compared with the nearest
annotated one within 3 µm. A pair is doubtful where more than half of at least 20 found cells have another
class than annotated. There, either the networks are wrong or the annotation is: the annotated tissue, drawn
by itself, is the third opinion. It agrees with an annotated tumor cell where it is cancer area, and with a
background cell where it is not. --pair-weights writes a file for `softctm train --pair-weights` with the
pairs that are doubtful under all models. These were chosen by networks that learned from other folds, so that
annotations of a fold have a part in what is left out where that fold is held out.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
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
from softctm.storage.files import write_json_atomically
from softctm.training.pair_weights import PairWeights

MAX_DISTANCE_PX = 15
MIN_CELLS = 20
DOUBTFUL_SHARE = 0.5


@dataclass(frozen=True)
class PairClasses:
    """One pair's classes, found and annotated.

    Attributes
    ----------
    pair, patient, organ : str
    compared, misclassified : int
        Found cells that have an annotated one beside them, and those of them with another class.
    agreement : float
        Share of annotated cells on known tissue that the annotated tissue agrees with; NaN where none is.
    """

    pair: str
    patient: str
    organ: str
    compared: int
    misclassified: int
    agreement: float

    @property
    def is_doubtful(self) -> bool:
        """Whether most of enough cells have another class."""
        return self.compared >= MIN_CELLS and self.misclassified > DOUBTFUL_SHARE * self.compared


def compare_classes(found: CellPoints, true: CellPoints) -> tuple[int, int]:
    """How many found cells have an annotated one within reach, and how many of those another class."""
    if not len(found) or not len(true):
        return 0, 0
    tree = KDTree(np.stack([true.x, true.y], 1))
    distance, nearest = tree.query(np.stack([found.x, found.y], 1))
    within = distance <= MAX_DISTANCE_PX
    return int(within.sum()), int((true.label[nearest] != found.label)[within].sum())


def tissue_agreement(true: CellPoints, window: NDArray[np.uint8]) -> float:
    """Share of annotated cells whose class is that of the annotated tissue around them; see `PairClasses`.

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


def classes_of(detector: Detector, pair: AnnotatedPair) -> PairClasses:
    """Predict one pair and compare its classes."""
    true, place = pair.cells(), tissue_window(pair.metadata, pair.id)
    window = pair.tissue_labels()[place.y : place.y + WINDOW_SIZE, place.x : place.x + WINDOW_SIZE]
    compared, misclassified = compare_classes(detector(pair.read()), true)
    agreement = tissue_agreement(true, window)
    return PairClasses(pair.id, pair.patient, pair.organ, compared, misclassified, agreement)


def summary(pairs: list[PairClasses]) -> str:
    """The findings about one model as text."""
    compared, misclassified = (sum(getattr(n, name) for n in pairs) for name in ("compared", "misclassified"))
    doubtful = [pair for pair in pairs if pair.is_doubtful]
    held = sum(pair.misclassified for pair in doubtful)
    agreeing = sum(pair.agreement >= DOUBTFUL_SHARE for pair in doubtful)
    lines = [
        f"{misclassified} of {compared} found cells are misclassified "
        f"({misclassified / max(compared, 1):.3f})",
        f"{len(doubtful)} of {len(pairs)} pairs, of {len({n.patient for n in doubtful})} patients, "
        f"are doubtful and hold {held / max(misclassified, 1):.2f} of the misclassified cells",
        f"in {agreeing} of these pairs the annotated tissue agrees with most annotated cells",
    ]
    for pair in sorted(doubtful, key=lambda one: -one.misclassified):
        lines.append(
            f"{pair.pair}  {pair.patient}  {pair.organ:<14}{pair.misclassified:>4} of "
            f"{pair.compared:<4} misclassified; tissue agrees with {pair.agreement:.2f}"
        )
    return "\n".join(lines)


def classes_out_of_fold(folder: Path, data: Path, views: int) -> list[PairClasses]:
    """Every pair of a model's folds, predicted by the networks that held it out."""
    validation = prepare_validation(load_model(folder), load_release(data), data, views)
    pairs = []
    for fold in sorted(set(validation.fold_of)):
        detector = Detector(validation.model.held_out(fold), views=views)
        chosen = [pair for pair, own in zip(validation.pairs, validation.fold_of, strict=True) if own == fold]
        pairs += [classes_of(detector, pair) for pair in chosen]
    return pairs


def weights_of(by_model: Mapping[str, list[PairClasses]], weight: float) -> PairWeights:
    """Give `weight` to the pairs that are doubtful under every model."""
    doubtful = [{pair.pair for pair in pairs if pair.is_doubtful} for pairs in by_model.values()]
    rule = (
        f"more than {DOUBTFUL_SHARE:g} of at least {MIN_CELLS} found cells have another class than "
        f"annotated, out of fold, under {' and '.join(by_model)}"
    )
    return PairWeights(rule, dict.fromkeys(sorted(set.intersection(*doubtful)), weight))


def main() -> None:
    """Predict all pairs out of fold and print where classes are wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, action="append", help="(may be repeated)")
    parser.add_argument("--views", type=int, default=1, choices=(1, 2, 4, 8))
    parser.add_argument("--json", type=Path, help="write every pair's figures there")
    parser.add_argument("--pair-weights", type=Path, help="write weights of doubtful pairs there")
    parser.add_argument("--weight", type=float, default=0.0, help="of a doubtful pair (default: 0)")
    args = parser.parse_args()
    by_model = {}
    for folder in args.weights:
        by_model[str(folder)] = classes_out_of_fold(folder, args.data, args.views)
        print(f"{folder}:\n{summary(by_model[str(folder)])}", flush=True)
    if args.json:
        rows = {name: [asdict(pair) for pair in pairs] for name, pairs in by_model.items()}
        write_json_atomically(args.json, rows, indent=1)
    if args.pair_weights:
        weights = weights_of(by_model, args.weight)
        write_json_atomically(args.pair_weights, weights.to_json(), indent=1)
        print(f"{args.pair_weights}: weight {args.weight:g} for {len(weights.of_pair)} pairs")


if __name__ == "__main__":
    main()
