"""Folds by patient, stratified by organ and cell counts, written to a file that every later step reads."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softctm.errors import InputError, UsageError
from softctm.ocelot import AnnotatedPair
from softctm.writers.atomic import write_json_atomically


def make_folds(
    pairs: Sequence[AnnotatedPair], count: int = 5, seed: int = 0, known: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Assign every pair to a fold so that no patient is in two.

    Patients are dealt out one by one, those with most cells first, each to the fold whose shares of pairs
    of the patient's organ, of all pairs, of background cells and of tumor cells it leaves most even.

    Parameters
    ----------
    pairs : sequence of AnnotatedPair
    count : int
        How many folds.
    seed : int
        Decides between patients with equally many cells.
    known : mapping of str to int, optional
        Patients whose folds are given; they are dealt first.

    Returns
    -------
    dict
        Pair ID → fold, 0 … count − 1.

    Raises
    ------
    UsageError
        If there are fewer patients than folds.
    """
    known = known or {}
    by_patient: dict[str, list[AnnotatedPair]] = defaultdict(list)
    for pair in pairs:
        by_patient[pair.patient].append(pair)
    patients = len({*by_patient, *known})
    if not 2 <= count <= patients:
        raise UsageError(f"{patients} patients cannot be split into {count} folds")
    organs = sorted({pair.organ for pair in pairs})
    traits = {patient: _traits(members, organs) for patient, members in by_patient.items()}
    total = np.sum(list(traits.values()), axis=0)
    shares = {patient: value / np.maximum(total, 1) for patient, value in traits.items()}
    rng = np.random.default_rng(seed)
    order = sorted(by_patient, key=lambda name: (name not in known, -shares[name].max(), rng.random()))
    filled = np.zeros((count, len(total)))
    fold_of: dict[str, int] = {}
    for patient in order:
        after = filled + shares[patient]
        # The growth of the sum of squares: least where the traits that the patient brings are scarcest.
        fold = known.get(patient, int(np.argmin((after**2 - filled**2).sum(1))))
        filled[fold] = after[fold]
        fold_of[patient] = fold
    return {pair.id: fold_of[pair.patient] for pair in pairs}


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
        If a pair is in none, or as `read_folds` says.
    """
    folds = read_folds(path)
    missing = [pair.id for pair in pairs if pair.id not in folds]
    if missing:
        raise InputError(f"{path}: has no fold for pair {missing[0]} and {len(missing) - 1} others")
    return [folds[pair.id] for pair in pairs]


def write_folds(path: Path, folds: dict[str, int], pairs: Sequence[AnnotatedPair], seed: int | None) -> None:
    """Write the assignment with what is needed to check it: patient and organ of every pair."""
    document = {
        "folds": max(folds.values()) + 1,
        "split_by": "patient",
        "seed": seed,
        "pairs": {p.id: {"fold": folds[p.id], "patient": p.patient, "organ": p.organ} for p in pairs},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomically(path, document, indent=1)


def read_folds(path: Path) -> dict[str, int]:
    """Read what `write_folds` wrote: pair ID → fold.

    Raises
    ------
    InputError
        If the file is not one of folds, or a patient is in two of them.
    """
    return {pair_id: fold for pair_id, (_, fold) in _read(path).items()}


def read_patients(path: Path) -> dict[str, int]:
    """The same by patient; errors as `read_folds`."""
    return dict(_read(path).values())


def seed_of(path: Path) -> int | None:
    """The seed that a file's folds were made with, if it says so."""
    seed: int | None = json.loads(path.read_text()).get("seed")
    return seed


def _read(path: Path) -> dict[str, tuple[str, int]]:
    """Pair ID → patient and fold."""
    try:
        entries = json.loads(path.read_text())["pairs"]
        read = {pair_id: (str(entry["patient"]), int(entry["fold"])) for pair_id, entry in entries.items()}
        seen: dict[str, int] = {}
        for patient, fold in read.values():
            if seen.setdefault(patient, fold) != fold:
                raise InputError(f"{path}: patient {patient} is in more than one fold")
    except OSError as error:
        raise InputError(f"{path}: cannot be read; make it with `softctm folds` ({error})") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a folds file ({type(error).__name__}: {error})") from None
    return read
