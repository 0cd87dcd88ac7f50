"""One experiment on one fold: a network trained on the other folds, and what it gets right on this one."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.recipes.experiments import EXPERIMENTS, Experiment
from softctm.datasets.ocelot import AnnotatedPair, load_release, tissue_labels_of
from softctm.evaluation.out_of_fold import count_by_rule
from softctm.evaluation.tissue import tissue_counts
from softctm.jobs.slides.state import npy_bytes
from softctm.model.tasks import CELL_CLASSES
from softctm.storage.files import write_bytes_atomically
from softctm.training.config import Task, preset_from_json, with_settings
from softctm.training.cross_validation import EnsembleRun
from softctm.training.fold_training import FoldJob, predict_tissue
from softctm.training.loop import LoopConfig
from softctm.training.pair_weights import PairWeights, read_pair_weights
from softctm.training.run_folder import CONFIG, NETWORK
from softctm.training.segmenters import open_segmenter
from softctm.training.starts import PretrainedStart, pretraining_datasets

_COUNTS, _SECONDS = "counts.npy", "seconds.txt"


@dataclass(frozen=True)
class Setup:
    """What all trials have in common.

    Attributes
    ----------
    data : Path
        An OCELOT release.
    folder : Path
        The run's folder; its config.json has the recipe.
    encoder_weights : str
    segmenter : str or None
        Makes the masks of experiments with guided masks, as `--segmenter` of `softctm train`.
    pair_weights : Path or None
        Of experiments with weighted pairs, as `--pair-weights` of `softctm train`.
    task : "tissue" or "cells"
    epochs : int
    """

    data: Path
    folder: Path
    encoder_weights: str
    segmenter: str | None
    pair_weights: Path | None
    task: Task
    epochs: int

    def run(self, experiment: Experiment) -> EnsembleRun:
        """The run, its recipe changed into the experiment's."""
        epochs = self.epochs * experiment.one_in
        settings = [*experiment.settings, f"{self.task}.optimizer.epochs={epochs}"]
        recipe = preset_from_json(json.loads((self.folder / CONFIG).read_text()))
        segmenter = self.segmenter if experiment.guided and self.segmenter else "classical"
        weights = self.pair_weights if experiment.weighted else None
        run = EnsembleRun(
            load_release(self.data),
            self.folder,
            with_settings(recipe, settings),
            LoopConfig(),
            self.encoder_weights,
            open_segmenter(segmenter),
            pair_weights=read_pair_weights(weights) if weights else None,
        )
        if experiment.one_in == 1:
            return run
        return replace(run, pair_weights=one_patient_in(experiment.one_in, run.pairs, run.fold_of()))


def one_patient_in(number: int, pairs: Sequence[AnnotatedPair], fold_of: Sequence[int]) -> PairWeights:
    """Leave out all but every such patient of those sorted by organ, fold and name.

    So each fold and organ keeps about its share, and whoever is among one in four is among one in two.
    """
    patients = {(pair.organ, fold, pair.patient) for pair, fold in zip(pairs, fold_of, strict=True)}
    kept = {patient for _, _, patient in sorted(patients)[::number]}
    left_out = {pair.id: 0.0 for pair in pairs if pair.patient not in kept}
    return PairWeights(f"one patient in {number}", left_out)


@dataclass(frozen=True)
class Trial:
    """An experiment, and the pretrained network that it starts from, if it does.

    Attributes
    ----------
    experiment_name : str
    start : Path or None
        A folder that `softctm pretrain` wrote.
    """

    experiment_name: str
    start: Path | None = None

    @property
    def name(self) -> str:
        """The experiment's name, with the datasets that the start knows."""
        if self.start is None:
            return self.experiment_name
        known = " + ".join(pretraining_datasets(PretrainedStart(self.start).config))
        return self.experiment_name.replace("pretrained", f"pretrained on {known}")

    def folder(self, setup: Setup) -> Path:
        """Where it keeps what it counts: elsewhere for another encoder, segmenter, start or other weights."""
        experiment = EXPERIMENTS[setup.task][self.experiment_name]
        parts = [self.experiment_name.replace(", ", "-").replace(" ", "-").lower(), str(setup.epochs)]
        is_file = Path(setup.encoder_weights).is_file()
        parts.append(_digest(Path(setup.encoder_weights).read_bytes()) if is_file else setup.encoder_weights)
        if experiment.guided and setup.segmenter:
            parts.append(_digest(repr(open_segmenter(setup.segmenter)).encode()))
        if experiment.weighted and setup.pair_weights:
            parts.append(_digest(setup.pair_weights.read_bytes()))
        if self.start:
            parts.append(_digest((self.start / setup.task / NETWORK).read_bytes()))
        return setup.folder / "recipes" / setup.task / "-".join(parts)

    def counts(self, setup: Setup, fold: int) -> NDArray[np.int64]:
        """Train the network that holds out `fold`, and count on the fold's pairs.

        Returns
        -------
        (pairs of the fold, rules, 2, 3) int64
            TP, FP and FN of both classes: of cells under each of `RULES`, of tissue pixels under one.
        """
        torch.set_num_threads(1)
        folder = self.folder(setup) / f"fold{fold}"
        if (stored := folder / _COUNTS).exists():
            counted: NDArray[np.int64] = np.load(stored)
            return counted
        began = time.process_time()
        run = setup.run(EXPERIMENTS[setup.task][self.experiment_name])
        job = replace(run.job(setup.task, fold), folder=folder)
        if self.start:
            job = replace(job, initialize=PretrainedStart(self.start).network(setup.task, fold))
        counts = np.stack((_counted_tissue if setup.task == "tissue" else _counted_cells)(run, job))
        write_bytes_atomically(stored, npy_bytes(counts))
        (folder / _SECONDS).write_text(f"{time.process_time() - began:.0f}\n")
        return counts

    def minutes_per_fold(self, setup: Setup) -> float:
        """Minutes of one core that a fold took, median over the folds; NaN where none was timed."""
        files = sorted(self.folder(setup).glob(f"fold*/{_SECONDS}"))
        return float(np.median([float(file.read_text()) for file in files])) / 60 if files else float("nan")


def _counted_cells(run: EnsembleRun, job: FoldJob) -> list[NDArray[np.int64]]:
    """Train, and count every pair of the held-out fold from one view: (rules, 2, 3) each."""
    arrays, network = run.cell_arrays(), run.run_cell_job(job)
    factor = run.preset.cells.network.downsampling
    counts = []
    for index in job.validation.tolist():
        image, _ = arrays.sample(index)
        with torch.inference_mode():
            logits = functional.interpolate(network(image[None]), scale_factor=factor, mode="bilinear")
        cells = logits[0, : len(CELL_CLASSES)].softmax(0)
        counts.append(count_by_rule(cells.numpy(), run.pairs[index].cells()))
    return counts


def _counted_tissue(run: EnsembleRun, job: FoldJob) -> list[NDArray[np.int64]]:
    """As `_counted_cells`: (1, 2, 3) each."""
    network = run.run_tissue_job(job)
    pairs = [run.pairs[index] for index in job.validation]
    found = predict_tissue(network, (pair.tissue_patch() for pair in pairs))
    return [
        tissue_counts(tissue_labels_of(probability), pair.tissue_labels())[None]
        for probability, pair in zip(found, pairs, strict=True)
    ]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]
