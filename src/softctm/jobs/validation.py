"""The out-of-fold table of a model: every pair is predicted by the networks that held out its fold."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm import __version__
from softctm.choices import DeviceChoice
from softctm.datasets.ocelot import AnnotatedPair, tissue_labels_of
from softctm.datasets.patient_folds import Folds, check_patients, read_folds
from softctm.errors import InputError, ModelError, UsageError
from softctm.evaluation.out_of_fold import RULES, OutOfFold, count_by_rule, out_of_fold
from softctm.evaluation.tissue import tissue_counts
from softctm.inference.load import detector_of
from softctm.jobs.pairs import PairDetector
from softctm.model import Model
from softctm.postprocessing.peaks import Peaks
from softctm.progress import SILENT, Progress
from softctm.storage.derived import derived_array
from softctm.storage.files import prepare_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Validation:
    """One model on the pairs of its folds.

    Attributes
    ----------
    model : Model
    pairs : sequence of AnnotatedPair
        Those of the dataset that are in the model's folds.
    folds : Folds
        The model's.
    views : int
        Of test-time augmentation.
    device : "auto", "cpu" or "cuda"
    work : Path or None
        Keeps the counts of every fold; they are used again while images, annotations, model and settings
        stay the same.
    progress : Progress
    """

    model: Model
    pairs: Sequence[AnnotatedPair]
    folds: Folds
    views: int = 8
    device: DeviceChoice = "auto"
    work: Path | None = None
    progress: Progress = SILENT

    @property
    def fold_of(self) -> list[int]:
        """The fold of every pair."""
        return [self.folds.of_pair[pair.id] for pair in self.pairs]

    def counts(self, fold: int) -> NDArray[np.int64]:
        """Predict a fold's pairs and count, or take the counts that `work` has.

        Returns
        -------
        (pairs of the fold, rules + 1, 2, 3) int64
            TP, FP and FN of both classes: of cells under each of `RULES`, then of tissue pixels.
        """
        pairs = [pair for pair, own in zip(self.pairs, self.fold_of, strict=True) if own == fold]
        model = self.model.held_out(fold)

        def build() -> NDArray[np.int64]:
            detector = detector_of(model, self.device, self.views)
            shown = self.progress.over(pairs, "pair", f"fold {fold}")
            return np.stack([_pair_counts(detector, pair) for pair in shown])

        if self.work is None:
            return build()
        prepare_folder(self.work)
        settings = {
            "version": __version__,
            "pairs": [pair.id for pair in pairs],
            "metadata": [dict(pair.metadata) for pair in pairs],
            "views": self.views,
            "networks": sorted(model.hashes.values()),
            "rules": [repr(rule) for rule in RULES],
        }
        files = [path for pair in pairs for path in _files_of(pair)]
        name = f"fold{fold}-{self.views}views-{model.precision}.npy"
        return np.array(derived_array(self.work / name, files, settings, build))

    def outcome(self) -> OutOfFold:
        """Predict every fold, and choose each fold's rule on the others.

        Raises
        ------
        UsageError
            If all pairs are of one fold.
        """
        fold_of = np.array(self.fold_of)
        if len(set(fold_of)) < 2:
            raise UsageError(f"all {len(fold_of)} pairs are of one fold; rules are chosen on the others")
        counts = np.empty((len(fold_of), len(RULES) + 1, 2, 3), np.int64)
        for fold in sorted(set(fold_of.tolist())):
            counts[fold_of == fold] = self.counts(fold)
        organs = [pair.organ for pair in self.pairs]
        patients = [pair.patient for pair in self.pairs]
        return out_of_fold(counts[:, :-1], counts[:, -1], fold_of.tolist(), organs, patients)


def prepare_validation(
    model: Model,
    dataset: Sequence[AnnotatedPair],
    data: Path,
    views: int = 8,
    device: DeviceChoice = "auto",
    work: Path | None = None,
    progress: Progress = SILENT,
) -> Validation:
    """Find the pairs of a model's folds in a dataset.

    Parameters
    ----------
    model : Model
    dataset : sequence of AnnotatedPair
    data : Path
        Where the dataset lies, for messages.
    views, device, work, progress
        See `Validation`.

    Raises
    ------
    ModelError
        If the model names no folds.
    UsageError
        If no pair is in them, or the model's rule is none of those that are chosen among.
    InputError
        If a pair is of another patient than its fold says, or lacks a file.
    """
    place = model.manifest.folds
    if place is None:
        raise ModelError(f"{model.folder}: model.json names no folds, so nothing can be scored out of fold")
    if not isinstance(model.postprocessing, Peaks):
        raise UsageError(
            f"{model.folder}: finds cells by {type(model.postprocessing).__name__.lower()}, and validate "
            "chooses among rules for peaks alone"
        )
    folds = read_folds(model.folder / place)
    pairs = pairs_of_folds(dataset, folds.of_pair, data)
    check_patients(pairs, folds, model.folder / place)
    for pair in pairs:
        for path in _files_of(pair):
            if not path.is_file():
                raise InputError(f"{path}: is missing; pair {pair.id} cannot be scored without it")
    return Validation(model, pairs, folds, views, device, work, progress)


def update_manifest(model: Model, figures: Mapping[str, Any]) -> None:
    """Write out-of-fold scores of the model's precision, and float32's best rule, into its model.json."""
    scores = {**model.manifest.scores, model.precision: {"out_of_fold": json.loads(json.dumps(figures))}}
    changes: dict[str, Any] = {"scores": scores}
    if model.precision == "float32":  # one rule serves all precisions
        changes["postprocessing"] = {"method": "peaks", **figures["rule"]}
    model.manifest.model_copy(update=changes).write(model.folder)


def pairs_of_folds(
    dataset: Sequence[AnnotatedPair], folds: Mapping[str, int], data: Path
) -> list[AnnotatedPair]:
    """The pairs that are in the model's folds; what is left out on either side is logged.

    Raises
    ------
    UsageError
        If there is none.
    """
    pairs = [pair for pair in dataset if pair.id in folds]
    if not pairs:
        raise UsageError(
            f"{data}: none of its {len(dataset)} pairs is in the model's folds; "
            "validate on the data that the model was trained on"
        )
    if len(pairs) < len(dataset):
        others = len(dataset) - len(pairs)
        logger.warning("%d of %d pairs are in none of the model's folds and left out", others, len(dataset))
    if len(pairs) < len(folds):
        logger.warning(
            "%d of the %d pairs of the model's folds are missing", len(folds) - len(pairs), len(folds)
        )
    return pairs


def table(figures: Mapping[str, Any]) -> str:
    """The figures of `OutOfFold.to_json` as text."""

    def line(name: str, entry: Mapping[str, Any]) -> str:
        cells = [f"{name:<16}{entry['pairs']:>6}"]
        for figure in ("mean_f1", "f1_bc", "f1_tc"):
            value, low, high = entry[figure]
            interval = "" if low is None else f" [{low:.3f}, {high:.3f}]"
            cells.append(f"{'none' if value is None else f'{value:.4f}{interval}':<22}")
        tissue = entry["tissue_mean_f1"]
        return "  ".join([*cells, "none" if tissue is None else f"{tissue:.4f}"])

    head = f"{'':<16}{'pairs':>6}  {'mean F1':<22}  {'F1 BC':<22}  {'F1 TC':<22}  tissue F1"
    over_folds = [
        f"{name}{both[0]:.4f} ± {both[1]:.4f}"
        for name, both in (
            ("", figures["mean_f1_over_folds"]),
            ("tissue ", figures["tissue_mean_f1_over_folds"]),
        )
        if both
    ]
    rule = figures["rule"]
    return "\n".join(
        [
            head,
            line("all", figures["all"]),
            *(line(f"fold {fold}", entry) for fold, entry in figures["folds"].items()),
            *(line(organ, entry) for organ, entry in figures["organs"].items()),
            f"mean ± standard deviation over folds: {'; '.join(over_folds) or 'none'}",
            f"with the authors' rule instead: {figures['mean_f1_with_the_authors_rule']:.4f}",
            f"best rule over all folds: σ {rule['sigma_px']} px, distance {rule['distance_px']} px, "
            f"threshold {rule['threshold']}; views: {figures['views']}",
        ]
    )


def _files_of(pair: AnnotatedPair) -> tuple[Path, ...]:
    return pair.cell_image, pair.tissue_image, pair.cell_csv, pair.tissue_png


def _pair_counts(detector: PairDetector, pair: AnnotatedPair) -> NDArray[np.int64]:
    prediction = detector.predict(pair.read(), maps=True)
    assert prediction.cell_probability is not None
    cells = count_by_rule(prediction.cell_probability, pair.cells())
    tissue = np.zeros((2, 3), np.int64)
    if prediction.tissue_probability is not None:  # some models learn no tissue map
        tissue = tissue_counts(tissue_labels_of(prediction.tissue_probability), pair.tissue_labels())
    return np.concatenate([cells, tissue[None]])
