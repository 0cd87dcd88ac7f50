"""`softctm export`: a finished run as a model folder that the detector loads."""

from __future__ import annotations

import argparse
from pathlib import Path

from softctm.commands.shared_options import add_release, add_run_folder, load_pairs
from softctm.datasets.image_registry import IMAGE_DATASETS
from softctm.errors import InputError
from softctm.extras import require_extra
from softctm.model.network_file import MANIFEST
from softctm.storage.files import files_below, refuse_foreign_files


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `softctm export`."""
    add_release(parser, "the OCELOT release that the run was trained on")
    add_run_folder(parser, "a finished run")
    parser.add_argument("--output", type=Path, required=True, help="the model folder to write")
    parser.add_argument(
        "--overwrite", action="store_true", help="write into a folder that holds other files than a model"
    )
    parser.add_argument("--name", required=True, help="the model's name")
    parser.add_argument(
        "--license", default="CC-BY-NC-4.0", help="of the weights (default: CC-BY-NC-4.0, OCELOT's)"
    )
    parser.add_argument(
        "--data-name", default="OCELOT 2023, training subset", help="how the manifest calls the data"
    )


def run(args: argparse.Namespace) -> int:
    """Export every network of the run."""
    require_extra("train")
    from softctm.training.config import OPTIONAL_FACTS, preset_from_json
    from softctm.training.cross_validation import EnsembleRun
    from softctm.training.loop import LoopConfig
    from softctm.training.model_export import export_ensemble
    from softctm.training.run_folder import CONFIG, read_run_file
    from softctm.training.starts import pretraining_datasets

    is_model = (args.output / MANIFEST).is_file()
    refuse_foreign_files(files_below(args.output), "export", lambda _: is_model, args.overwrite)
    path = args.run_folder / CONFIG
    config = read_run_file(path)
    try:
        preset, seed, encoder_weights = preset_from_json(config), config["seed"], config["encoder_weights"]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not a run's configuration; {error} is missing or of another kind"
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
    licenses = [args.license, *(dataset.license for dataset in pretrained_on)]
    facts |= {"licenses": licenses, "attributions": [dataset.attribution for dataset in pretrained_on]}
    export_ensemble(ensemble, args.output, args.name, facts)
    return 0
