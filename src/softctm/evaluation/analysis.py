"""The evaluation on one page: match once, then ask everything of the match."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softctm.evaluation.bootstrap import RESAMPLES, SEED, Bootstrap
from softctm.evaluation.calibration import calibration
from softctm.evaluation.confidence import confidence
from softctm.evaluation.confusion import confusion, pair_matrices
from softctm.evaluation.distance import distance_errors
from softctm.evaluation.matching import CellTable, Match, match_tables
from softctm.evaluation.purity import Purity, purity
from softctm.evaluation.result import Evaluation, PairResult
from softctm.evaluation.scores import challenge_scores, counts_of, named_scores, ratio
from softctm.evaluation.subgroups import by_organ, by_region, cell_regions
from softctm.evaluation.tissue import tissue_scores
from softctm.evaluation.truth import GroundTruth
from softctm.points import CellPoints


def evaluate(
    predictions: Sequence[CellPoints],
    truth: GroundTruth,
    *,
    name: str = "predictions",
    tissue_maps: Sequence[Path | None] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Evaluation:
    """Compare predictions with the truth.

    Parameters
    ----------
    predictions : sequence of CellPoints
        One a pair, in the truth's order; empty for a pair without an answer.
    truth : GroundTruth
    name : str
        What to call the predictions.
    tissue_maps : sequence of Path or None, optional
        Each pair's predicted tissue map, as `find_tissue_maps` lists them.
    resamples : int
        Of the bootstrap over patients; 0 for no intervals.
    seed : int

    Raises
    ------
    ValueError
        If there are not as many predictions as pairs, or no pairs.
    InputError
        If a tissue annotation, a tissue map or a pair's geometry is malformed.
    """
    if len(predictions) != len(truth) or not len(truth):
        raise ValueError(f"{len(predictions)} predictions for {len(truth)} pairs; each pair takes one")
    predicted, true = CellTable.of(predictions), CellTable.of(truth.points)
    bootstrap = Bootstrap(len(truth), resamples, seed, truth.units)
    by_class = match_tables(predicted, true)
    by_place = match_tables(predicted, true, same_class=False)
    counts = counts_of(by_class, predicted, true, len(truth))
    purities = purity(predictions, truth.points, bootstrap)
    found = pair_matrices(by_place, predicted, true, len(truth))
    regions = None
    if any(pair.has_tissue for pair in truth.pairs):
        regions = cell_regions(predicted, true, truth)
    return Evaluation(
        name=name,
        truth=truth,
        challenge=challenge_scores(counts.sum(axis=0)),
        figures=bootstrap.estimates(counts, named_scores),
        counts=counts.sum(axis=0),
        pairs=_pair_results(predictions, truth, by_class, counts, found, purities),
        organs=tuple(by_organ(counts, [pair.organ for pair in truth.pairs], bootstrap)),
        regions=tuple(by_region(by_class, predicted, true, regions, bootstrap)) if regions else (),
        confusion=confusion(found, bootstrap),
        confidence=confidence(by_class, predicted, true, bootstrap),
        calibration=calibration(by_class, predicted, bootstrap),
        distances=distance_errors(by_class, predicted, true, bootstrap),
        purity=purities,
        tissue=tuple(tissue_scores(tissue_maps, truth, bootstrap)) if tissue_maps is not None else (),
        resamples=resamples,
        seed=seed,
    )


def _pair_results(
    predictions: Sequence[CellPoints],
    truth: GroundTruth,
    matched: Match,
    counts: NDArray[np.int64],
    found: NDArray[np.int64],
    purities: Purity,
) -> tuple[PairResult, ...]:
    """Cut the joint match into pairs."""
    scores = named_scores(counts, undefined=np.nan)
    matrices = found.astype(np.float64)
    found_cells, cells = matrices[:, :2, :2].sum(axis=(1, 2)), matrices.sum(axis=(1, 2))
    detection_f1 = ratio(2 * found_cells, cells + found_cells, np.nan)  # cells: TP, FP and FN, once each
    results = []
    start = true_start = 0
    for i, (pair, points) in enumerate(zip(truth.pairs, predictions, strict=True)):
        end, true_end = start + len(points), true_start + len(pair.points)
        partner, finder = matched.true_cell[start:end], matched.prediction[true_start:true_end]
        own = Match(
            np.where(partner >= 0, partner - true_start, -1),
            np.where(finder >= 0, finder - start, -1),
            matched.distance[start:end],
        )
        results.append(
            PairResult(
                index=i,
                truth=pair,
                predicted=points,
                match=own,
                counts=counts[i],
                scores={key: float(values[i]) for key, values in scores.items()},
                detection_f1=float(detection_f1[i]),
                true_purity=float(purities.true[i]),
                predicted_purity=float(purities.predicted[i]),
            )
        )
        start, true_start = end, true_end
    return tuple(results)
