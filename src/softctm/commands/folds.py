"""`softctm folds`: assign patients to folds and write them to a file."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from softctm.commands.shared_options import add_overwrite, add_release, load_pairs, seed
from softctm.progress import counted
from softctm.storage.files import refuse_foreign_files
from softctm.terminal.console import show


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `softctm folds`."""
    parser.add_argument("output", type=Path, help="the JSON file to write")
    add_release(parser)
    parser.add_argument("--folds", type=int, default=5, help="number of folds (default: 5)")
    parser.add_argument("--seed", type=seed, default=0, help="decides between equal patients (default: 0)")
    add_overwrite(parser)


def run(args: argparse.Namespace) -> int:
    """Make the folds, write them, and print what is in each."""
    from softctm.datasets.patient_folds import is_folds_file, make_folds, write_folds

    refuse_foreign_files([args.output], "folds", is_folds_file, args.overwrite)
    pairs = load_pairs(args)
    folds = make_folds(pairs, args.folds, args.seed)
    write_folds(args.output, folds, pairs, args.seed)
    for fold in sorted(set(folds.values())):
        members = [pair for pair in pairs if folds[pair.id] == fold]
        organs = ", ".join(f"{organ} {n}" for organ, n in sorted(Counter(p.organ for p in members).items()))
        show(
            f"fold {fold}: {counted(len(members), 'pair')}, "
            f"{counted(len({p.patient for p in members}), 'patient')}; {organs}"
        )
    return 0
