"""`softctm validate`: the out-of-fold table of a model, from its stored networks and folds."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.choices import VIEW_COUNTS
from softctm.commands.shared_options import add_release
from softctm.datasets.ocelot import AnnotatedPair, load_release, tissue_labels_of
from softctm.errors import ModelError, UsageError
from softctm.files import write_bytes_atomically, write_json_atomically
from softctm.model import Model, find_weights, load_model


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `softctm validate`."""
    add_release(parser, "the OCELOT release that the model was trained on")
    parser.add_argument("--weights", type=Path, help="the model's folder (default: model_weights)")
    parser.add_argument("--views", type=int, choices=VIEW_COUNTS, default=8, help="(default: 8)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: auto)")
    parser.add_argument("--fold", type=int, action="append", help="predict this fold only (may be repeated)")
    parser.add_argument(
        "--work", type=Path, help="keep the counts of every fold here, and use those that are"
    )
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument(
        "--update", action="store_true", help="write scores and the best rule into the model's model.json"
    )


def run(args: argparse.Namespace) -> int:
    """Predict every fold with the networks that never saw it, choose rules crosswise, print the table."""
    from softctm.datasets.folds import read_folds
    from softctm.evaluation.out_of_fold import out_of_fold

    model = load_model(find_weights(args.weights))
    place = model.manifest.folds
    if place is None:
        raise ModelError(f"{model.folder}: model.json names no folds, so nothing can be scored out of fold")
    folds = read_folds(model.folder / place).of_pair
    pairs = pairs_of_folds(load_release(args.data, args.subset), folds, args.data)
    fold_of = [folds[pair.id] for pair in pairs]
    if absent := set(args.fold or []) - set(fold_of):
        raise UsageError(f"--fold {min(absent)}: {args.data} holds no pair of it")
    if not args.fold and len(set(fold_of)) < 2:
        raise UsageError(f"{args.data}: its pairs are all of one fold; rules are chosen on the others")
    if args.update and len(pairs) < len(folds):
        raise UsageError("--update: wants all pairs of the model's folds, or its scores would be of a part")
    by_rule: dict[int, NDArray[np.int64]] = {}
    tissue: dict[int, NDArray[np.int64]] = {}
    for fold in args.fold or sorted(set(fold_of)):
        indices = [index for index, own in enumerate(fold_of) if own == fold]
        counts = _fold_counts(args, model.held_out(fold), fold, [pairs[index] for index in indices])
        by_rule |= dict(zip(indices, counts["cells"], strict=True))
        tissue |= dict(zip(indices, counts["tissue"], strict=True))
    if args.fold:
        print(f"folds {args.fold} are counted; run again without --fold for the table")
        return 0
    order = range(len(pairs))
    outcome = out_of_fold(
        np.stack([by_rule[i] for i in order]),
        np.stack([tissue[i] for i in order]),
        fold_of,
        [pair.organ for pair in pairs],
    )
    figures = {"views": args.views, **outcome.to_json()}
    print(table(figures))
    if args.json:
        write_json_atomically(args.json, figures, indent=1)
    if args.update:
        path = model.folder / "model.json"
        document = json.loads(path.read_text())
        document["postprocessing"] = {"method": "peaks", **figures["rule"]}
        document["scores"] = {"out_of_fold": figures}
        write_json_atomically(path, document, indent=1)
    return 0


def pairs_of_folds(
    release: Sequence[AnnotatedPair], folds: Mapping[str, int], data: Path
) -> list[AnnotatedPair]:
    """The pairs that are in the model's folds; what is left out on either side is printed.

    Raises
    ------
    UsageError
        If there is none.
    """
    pairs = [pair for pair in release if pair.id in folds]
    if not pairs:
        raise UsageError(
            f"{data}: none of its {len(release)} pairs is in the model's folds; "
            "validate on the data that the model was trained on"
        )
    if len(pairs) < len(release):
        others = len(release) - len(pairs)
        print(f"{others} of {len(release)} pairs are in none of the model's folds and left out")
    if len(pairs) < len(folds):
        print(f"{len(folds) - len(pairs)} of the {len(folds)} pairs of the model's folds are not there")
    return pairs


def _fold_counts(
    args: argparse.Namespace, model: Model, fold: int, pairs: Sequence[AnnotatedPair]
) -> dict[str, NDArray[np.int64]]:
    """Counts of a fold's pairs, from `--work` where they are there for these very networks."""
    from tqdm import tqdm

    from softctm.evaluation.out_of_fold import RULES, count_by_rule
    from softctm.evaluation.tissue import tissue_counts
    from softctm.inference.detector import Detector
    from softctm.readers import open_pairs

    counted = repr(([pair.id for pair in pairs], args.views, sorted(model.hashes.values()), RULES))
    name = f"fold{fold}-{hashlib.sha256(counted.encode()).hexdigest()[:16]}.npz"
    stored = args.work / name if args.work else None
    if stored is not None and stored.exists():
        with np.load(stored) as file:
            return dict(file)
    detector = Detector(model, device=args.device, views=args.views)
    source = open_pairs(args.data, args.subset)
    number = {name: position for position, name in enumerate(source.names)}
    cells, tissue = [], []
    for pair in tqdm(pairs, desc=f"fold {fold}", unit="pair", disable=None):
        prediction = detector.predict(source.read(number[pair.id]), maps=True)
        assert prediction.cell_probability is not None
        assert prediction.tissue_probability is not None
        cells.append(count_by_rule(prediction.cell_probability, pair.cells()))
        tissue.append(tissue_counts(tissue_labels_of(prediction.tissue_probability), pair.tissue_labels()))
    counts = {"cells": np.stack(cells), "tissue": np.stack(tissue)}
    if stored is not None:
        stored.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.savez(buffer, **counts)  # type: ignore[arg-type]
        write_bytes_atomically(stored, buffer.getvalue())
    return counts


def table(figures: dict[str, Any]) -> str:
    """The figures of `OutOfFold.to_json` as text."""

    def line(name: str, entry: dict[str, Any]) -> str:
        cells = [f"{name:<16}{entry['pairs']:>6}"]
        for figure in ("mean_f1", "f1_bc", "f1_tc"):
            value, low, high = entry[figure]
            cells.append(f"{value:.4f} [{low:.3f}, {high:.3f}]")
        return "  ".join([*cells, f"{entry['tissue_mean_f1']:.4f}"])

    head = f"{'':<16}{'pairs':>6}  {'mean F1':<22}  {'F1 BC':<22}  {'F1 TC':<22}  tissue F1"
    mean, deviation = figures["mean_f1_over_folds"]
    tissue_mean, tissue_deviation = figures["tissue_mean_f1_over_folds"]
    rule = figures["rule"]
    return "\n".join(
        [
            head,
            line("all", figures["all"]),
            *(line(f"fold {fold}", entry) for fold, entry in figures["folds"].items()),
            *(line(organ, entry) for organ, entry in figures["organs"].items()),
            f"mean ± standard deviation over folds: {mean:.4f} ± {deviation:.4f}; "
            f"tissue {tissue_mean:.4f} ± {tissue_deviation:.4f}",
            f"with the authors' rule instead: {figures['mean_f1_with_the_authors_rule']:.4f}",
            f"best rule over all folds: σ {rule['sigma_px']} px, distance {rule['distance_px']} px, "
            f"threshold {rule['threshold']}; views: {figures['views']}",
        ]
    )
