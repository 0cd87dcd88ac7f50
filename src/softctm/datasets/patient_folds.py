"""Folds by patient, stratified by organ and cell counts, written to a file that every later step reads."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.datasets.ocelot import AnnotatedPair
from softctm.datasets.patients import DEFAULT_RULE, odd_slide_names
from softctm.errors import InputError, UsageError
from softctm.progress import counted
from softctm.storage.files import prepare_folder, write_json_atomically
from softctm.storage.text_files import read_json

logger = logging.getLogger(__name__)


DEFAULT_FOLDS = 5


@dataclass(frozen=True)
class Folds:
    """Who is in which fold.

    Attributes
    ----------
    of_pair : mapping of str to int
        Pair ID → fold.
    of_patient : mapping of str to int
        Patient → fold: those of the pairs, and those whom the networks knew before.
    count : int
        How many folds there are; some may be empty.
    seed : int or None
        Of the assignment, where it is known.
    """

    of_pair: Mapping[str, int]
    of_patient: Mapping[str, int] = field(repr=False)
    count: int
    seed: int | None


def make_folds(
    pairs: Sequence[AnnotatedPair],
    count: int = DEFAULT_FOLDS,
    seed: int = 0,
    known: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Assign every pair to a fold so that no patient is in two.

    Patients are assigned one by one, those with most cells first, each to the fold whose shares of pairs
    of the patient's organ, of all pairs, of background cells and of tumor cells it leaves most even.

    Parameters
    ----------
    pairs : sequence of AnnotatedPair
    count : int
        How many folds.
    seed : int
        Decides between patients with equally many cells.
    known : mapping of str to int, optional
        Patients whose folds are given; they are assigned first.

    Returns
    -------
    dict
        Pair ID → fold, 0 … count − 1.

    Raises
    ------
    UsageError
        If there are fewer patients than folds, or all known ones are in the same fold.
    InputError
        If a pair's patient is unknown.
    """
    known = known or {}
    by_patient: dict[str, list[AnnotatedPair]] = defaultdict(list)
    for pair in pairs:
        if not pair.patient:
            raise InputError(
                f"pair {pair.id}: its metadata do not tell its patient; by default that is {DEFAULT_RULE}; "
                "name a metadata field or a pattern by --patient-key"
            )
        by_patient[pair.patient].append(pair)
    if warning := odd_slide_names([(pair.patient, pair.metadata.get("slide_name")) for pair in pairs]):
        logger.warning("%s", warning)
    if not known and not 2 <= count <= len(by_patient):
        raise UsageError(
            f"{counted(len(by_patient), 'patient')} cannot be split into {count} folds (such as "
            f"{sorted(by_patient)[0]}; by default a patient is {DEFAULT_RULE}; "
            "--patient-key names another field or pattern)"
        )
    organs = sorted({pair.organ for pair in pairs})
    traits = {patient: _traits(members, organs) for patient, members in by_patient.items()}
    fold_of = assign_evenly(traits, count, seed, known)
    if len(set(fold_of.values())) < 2:
        raise UsageError(f"all {len(pairs)} pairs are in one fold: nothing is left to train on")
    return {pair.id: fold_of[pair.patient] for pair in pairs}


def assign_evenly(
    traits: Mapping[str, NDArray[np.float64]], count: int, seed: int, known: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Assign groups to folds whose shares of every trait are alike.

    Parameters
    ----------
    traits : mapping of str to (K,) float64
        Group → how much of each trait it brings.
    count : int
        How many folds.
    seed : int
        Decides between groups that bring equally much.
    known : mapping of str to int, optional
        Groups whose folds are given.

    Returns
    -------
    dict
        Group → fold, 0 … count − 1.
    """
    known = known or {}
    total = np.sum(list(traits.values()), axis=0)
    shares = {name: value / np.maximum(total, 1) for name, value in traits.items()}
    rng = np.random.default_rng(seed)
    order = sorted(traits, key=lambda name: (name not in known, -shares[name].max(), rng.random()))
    filled = np.zeros((count, len(total)))
    fold_of: dict[str, int] = {}
    for name in order:
        after = filled + shares[name]
        # The growth of the sum of squares: least where the traits that the group brings are scarcest.
        fold = known.get(name, int(np.argmin((after**2 - filled**2).sum(1))))
        filled[fold] = after[fold]
        fold_of[name] = fold
    return fold_of


def _traits(pairs: Sequence[AnnotatedPair], organs: Sequence[str]) -> NDArray[np.float64]:
    """Pairs by organ, all pairs, background cells, tumor cells."""
    labels = np.concatenate([pair.cells().label for pair in pairs])
    by_organ = [sum(pair.organ == organ for pair in pairs) for organ in organs]
    return np.array([*by_organ, len(pairs), np.sum(labels == 1), np.sum(labels == 2)], float)


def folds_of(pairs: Sequence[AnnotatedPair], path: Path) -> list[int]:
    """The fold of every pair, in their order, by a file that `write_folds` wrote.

    Raises
    ------
    InputError
        If a pair is in none, or is of another patient than the file says, or as `read_folds` says.
    """
    folds = read_folds(path)
    missing = [pair.id for pair in pairs if pair.id not in folds.of_pair]
    if missing:
        raise InputError(f"{path}: has no fold for pair {missing[0]} and {len(missing) - 1} others")
    check_patients(pairs, folds, path)
    return [folds.of_pair[pair.id] for pair in pairs]


def check_patients(pairs: Sequence[AnnotatedPair], folds: Folds, path: Path) -> None:
    """Make sure that a patient's pairs are still where the folds have the patient.

    Raises
    ------
    InputError
        If a pair's patient, by its metadata now, is in another fold than the pair, or in none.
    """
    for pair in pairs:
        if folds.of_patient.get(pair.patient) != folds.of_pair[pair.id]:
            raise InputError(
                f"{path}: pair {pair.id} is of patient '{pair.patient}' now, who is not in its fold "
                f"{folds.of_pair[pair.id]}; use the data and the --patient-key that the folds were made with"
            )


def write_folds(
    path: Path,
    folds: Mapping[str, int],
    pairs: Sequence[AnnotatedPair],
    seed: int | None,
    before: Folds | None = None,
) -> None:
    """Write the assignment with what is needed to check it: patient and organ of every pair.

    Networks remember whom they were trained on before: these patients, `before`, are kept too.
    """
    document: dict[str, Any] = {
        "folds": before.count if before else max(folds.values()) + 1,
        "split_by": "patient",
        "seed": seed,
        "pairs": {p.id: {"fold": folds[p.id], "patient": p.patient, "organ": p.organ} for p in pairs},
    }
    own = {pair.patient for pair in pairs}
    if before and (others := {name: fold for name, fold in before.of_patient.items() if name not in own}):
        document["known_before"] = others
    prepare_folder(path.parent)
    write_json_atomically(path, document, indent=1)


def read_folds(path: Path) -> Folds:
    """Read what `write_folds` wrote.

    Raises
    ------
    InputError
        If the file is not one of folds, or a patient is in two of them.
    """
    try:
        document = read_json(path, remedy="make it with `softctm folds`")
        entries = document["pairs"]
        of_pair = {pair_id: int(entry["fold"]) for pair_id, entry in entries.items()}
        of_patient = {str(name): int(fold) for name, fold in document.get("known_before", {}).items()}
        for pair_id, entry in entries.items():
            if of_patient.setdefault(entry["patient"], of_pair[pair_id]) != of_pair[pair_id]:
                raise InputError(f"{path}: patient {entry['patient']} is in more than one fold")
        count = int(document.get("folds", 1 + max(of_patient.values())))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: not a folds file; make one with `softctm folds`") from None
    return Folds(of_pair, of_patient, count, document.get("seed"))


def is_folds_file(path: Path) -> bool:
    """Whether `read_folds` can read it."""
    try:
        read_folds(path)
    except InputError:
        return False
    return True
