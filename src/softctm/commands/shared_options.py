"""Command-line options that several subcommands have in common."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from softctm.errors import UsageError
from softctm.networks.ranges import Range

if TYPE_CHECKING:
    from softctm.datasets.labeled_images import LabeledImage
    from softctm.datasets.ocelot import AnnotatedPair

_SEEDS = Range(0, 2**32 - 1)


def add_release(parser: argparse.ArgumentParser, what: str = "an OCELOT release") -> None:
    """Add `--data`, `--dataset`, `--subset` and `--patient-key`: the pairs to work on."""
    from softctm.datasets.pair_datasets import DATASETS

    parser.add_argument("--data", type=Path, required=True, help=what)
    parser.add_argument(
        "--dataset", choices=sorted(DATASETS), default="ocelot", help="layout of --data (default: ocelot)"
    )
    parser.add_argument("--subset", default="train", help="of the release (default: train)")
    add_patient_key(parser)


def add_patient_key(parser: argparse.ArgumentParser) -> None:
    """Add `--patient-key`: how to tell a pair's patient."""
    parser.add_argument(
        "--patient-key", default="", metavar="FIELD|PATTERN",
        help="what tells a pair's patient: a metadata field, such as patient_id, or a regular expression "
        "with one group, searched in slide_name (default: the first twelve characters of slide_name)",
    )  # fmt: skip


def load_pairs(args: argparse.Namespace) -> list[AnnotatedPair]:
    """The pairs that the options of `add_release` name; errors as `load_release` and `PatientKey`."""
    from softctm.datasets.pair_datasets import DATASETS
    from softctm.datasets.patients import PatientKey

    return DATASETS[args.dataset](args.data, args.subset, PatientKey(args.patient_key))


def seed(text: str) -> int:
    """The value of `--seed`, for argparse."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None
    if number not in _SEEDS:
        raise argparse.ArgumentTypeError(f"must {_SEEDS}, not {number}")
    return number


def add_image_data(parser: argparse.ArgumentParser) -> None:
    """Add `--data NAME=PATH`: datasets of single labeled images."""
    from softctm.datasets.image_registry import IMAGE_DATASETS

    parser.add_argument(
        "--data", action="append", required=True, metavar="NAME=PATH",
        help=f"a dataset, one of {', '.join(IMAGE_DATASETS)}, and its folder (may be repeated)",
    )  # fmt: skip


def load_image_data(given: Sequence[str]) -> dict[str, Sequence[LabeledImage]]:
    """Dataset → its images, of what `add_image_data` took.

    Raises
    ------
    UsageError
        If a dataset is given twice, or without a folder, or unknown.
    InputError
        If a folder is not one of its dataset.
    """
    from softctm.datasets.image_registry import load_images

    images: dict[str, Sequence[LabeledImage]] = {}
    for item in given:
        name, separator, path = item.partition("=")
        if not separator:
            raise UsageError(f"--data {item}: must be NAME=PATH, such as consep=data/consep")
        if name in images:
            raise UsageError(f"--data {name}: given twice")
        images[name] = load_images(name, Path(path))
    return images


def add_segmenter(parser: argparse.ArgumentParser) -> None:
    """Add `--segmenter`: what outlines nuclei for hard and soft targets."""
    parser.add_argument(
        "--segmenter", default="classical", metavar="classical|points|FILE",
        help="what outlines the annotated nuclei: color deconvolution and watershed; a network guided by the "
        "points; or such a network, or NuClick's, as an ONNX file (default: classical)",
    )  # fmt: skip


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add `--overwrite`: replace files that the command did not make."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="also replace files that this command did not make (default: stop before anything is written)",
    )


def add_run_folder(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--run`: the folder of a training run."""
    parser.add_argument(
        "--run",
        type=Path,
        default=Path("runs/compact"),
        dest="run_folder",
        help=f"{what} (default: runs/compact)",
    )
