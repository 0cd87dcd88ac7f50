"""`softctm export`: a finished run as a model folder that the detector loads."""

from __future__ import annotations

import argparse
from pathlib import Path

from softctm.commands.model_folder import add_model_folder, new_model
from softctm.commands.shared_options import add_release, add_run_folder, load_pairs
from softctm.datasets.image_registry import IMAGE_DATASETS
from softctm.errors import InputError
from softctm.extras import require_extra


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `softctm export`."""
    add_release(parser, "the OCELOT release that the run was trained on")
    add_run_folder(parser, "a finished run")
    add_model_folder(parser)
    parser.add_argument("--name", required=True, help="the model's name")
    parser.add_argument(
        "--license", default="CC-BY-NC-4.0", help="of the weights (default: CC-BY-NC-4.0, OCELOT's)"
    )
    parser.add_argument(
        "--attribution", action="append", default=[], metavar="TEXT",
        help="whose data and weights it was made from (may be repeated)",
    )  # fmt: skip
    parser.add_argument(
        "--data-name", default="OCELOT 2023, training subset", help="how the manifest calls the data"
    )


def run(args: argparse.Namespace) -> int:
    """Export every network of the run."""
    require_extra("train")
    with new_model(args, "export", "cell-points", "joint-cell-points") as folder:
        _export(args, folder)
    return 0


def _export(args: argparse.Namespace, folder: Path) -> None:
    from softctm.training.config import OPTIONAL_FACTS, preset_from_json
    from softctm.training.cross_validation import EnsembleRun
    from softctm.training.loop import LoopConfig
    from softctm.training.model_export import export_ensemble
    from softctm.training.run_folder import CONFIG, inherited, read_run_file
    from softctm.training.starts import pretraining_datasets

    path = args.run_folder / CONFIG
    config = read_run_file(path)
    try:
        preset, seed, encoder_weights = (
            preset_from_json(config),
            config["seed"],
            config["encoder_weights"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not a run's configuration; {error} is missing, of another kind or outside its range"
        ) from None
    ensemble = EnsembleRun(
        pairs=load_pairs(args),
        folder=args.run_folder,
        preset=preset,
        loop=LoopConfig(seed=seed),
        encoder_weights=None,
    )
    facts = {"data": args.data_name, "encoder_weights": encoder_weights}
    facts |= {name: config[name] for name in OPTIONAL_FACTS if name in config}
    pretrained_on = [IMAGE_DATASETS[name] for name in pretraining_datasets(config)]
    licenses, attributions = inherited(
        config,
        [args.license, *(dataset.license for dataset in pretrained_on)],
        [*args.attribution, *(dataset.attribution for dataset in pretrained_on)],
    )
    facts |= {"licenses": licenses, "attributions": attributions}
    export_ensemble(ensemble, folder, args.name, facts)
