"""Presets: the paper's values, changes by name, and back from JSON."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest

from softctm.cli import main
from softctm.errors import UsageError
from softctm.training.config import (
    config_from_json,
    part_with_defaults,
    preset_from_json,
    with_defaults,
    with_settings,
)
from softctm.training.presets import PRESETS

COMPACT = PRESETS["compact"]


def test_paper_preset_has_the_papers_values() -> None:
    tissue, cells = PRESETS["paper"].tissue, PRESETS["paper"].cells
    for task in (tissue, cells):
        assert dataclasses.astuple(task.network)[:6] == ("resnet50", 5, 256, 1, (1.0,), "deeplabv3plus")
        assert dataclasses.astuple(task.augmentation) == (896, 0.1, 0.2, 0.2, 0.0, 1.0, 0.7)
    optimizer = cells.optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.epochs, optimizer.batch) == (
        "adam",
        8e-4,
        150,
        32,
    )
    assert (optimizer.schedule, optimizer.weight_decay, optimizer.ema) == ("constant", 0, 0)
    optimizer = tissue.optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.epochs, optimizer.batch) == (
        "sgd",
        0.2,
        100,
        8,
    )
    assert (optimizer.schedule, optimizer.decay_per_epoch, optimizer.weight_decay) == (
        "exponential",
        0.97,
        5e-6,
    )
    target = cells.target
    assert (target.kind, target.sigma_um, target.circle_radius_um, target.loss) == (
        "soft",
        3,
        1.4,
        "square-error",
    )
    assert cells.coupling == "predicted"


def test_fine_tuning_at_scales_ends_with_the_middle_of_the_scales_it_trains_at() -> None:
    before, tissue = PRESETS["compact-finetune"], PRESETS["compact-finetune-scales"].tissue
    (scale,) = tissue.network.scales
    assert scale**2 == pytest.approx(tissue.augmentation.magnified, rel=0.03)
    assert (before.tissue.stored_downsampling, tissue.stored_downsampling) == (2, 1)
    assert PRESETS["compact-finetune-scales"].cells.network == before.cells.network


def test_settings_change_what_they_name_and_nothing_else() -> None:
    changed = with_settings(
        COMPACT,
        [
            "cells.target.sigma_um=2.5",
            "cells.target.kind=hard",
            "cells.target.class_weights=1,3,4.5",
            "cells.coupling=none",
            "tissue.optimizer.epochs=3",
            "tissue.network.encoder=resnet34",
            "tissue.network.scales=1.25,1.5,2",
        ],
    )
    assert changed.cells.target.sigma_um == 2.5
    assert changed.cells.target.kind == "hard"
    assert changed.cells.target.class_weights == (1.0, 3.0, 4.5)
    assert changed.cells.coupling == "none"
    assert changed.tissue.optimizer.epochs == 3
    assert isinstance(changed.tissue.optimizer.epochs, int)
    assert changed.tissue.network.encoder == "resnet34"
    assert changed.tissue.network.scales == (1.25, 1.5, 2.0)
    assert changed.cells.optimizer == COMPACT.cells.optimizer
    assert changed.tissue.augmentation == COMPACT.tissue.augmentation
    assert with_settings(COMPACT, []) == COMPACT


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("cells.target.sigma_um", "must be NAME=VALUE"),
        ("cells.target.sigma=2", "no 'sigma' here; there are kind, circle_radius_um, sigma_um"),
        ("cell.target.sigma_um=2", "no 'cell' here; there are tissue, cells"),
        ("cells.target=soft", "'target' is a group; name one value in it"),
        ("cells=1", "'cells' is a group"),
        (
            "cells.target.sigma_um=wide",
            f"'wide' does not fit; the preset has {COMPACT.cells.target.sigma_um}",
        ),
        ("cells.target.kind=square", "'square' does not fit; the preset has 'soft'"),
        (
            "cells.optimizer.epochs=4.5",
            f"'4.5' does not fit; the preset has {COMPACT.cells.optimizer.epochs}",
        ),
        ("cells.optimizer.name=lion", "'lion' does not fit"),
        ("cells.target.class_weights=1,2", "'1,2' does not fit"),
        ("cells.target.class_weights=1,,2,3", "'1,,2,3' does not fit"),
        ("cells.target.class_weights=", "'' does not fit"),
        ("tissue.network.scales=1.25,-1", "scales must lie in 0 … 4 (0 excluded), not -1.0"),
        ("tissue.network.scales=", "'' does not fit"),
        ("tissue.augmentation.magnified=0.5", "magnified must lie in 1 … 4, not 0.5"),
        ("cells.optimizer.batch=0", "batch must be at least 1, not 0"),
        ("cells.optimizer.accumulation=0", "accumulation must be at least 1, not 0"),
        ("cells.optimizer.learning_rate=nan", "learning_rate must be at least 0, not nan"),
        ("cells.optimizer.learning_rate=inf", "learning_rate must be at least 0, not inf"),
        ("cells.optimizer.epochs=-1", "epochs must be at least 0, not -1"),
        ("cells.optimizer.ema=1", "ema must lie in 0 … 1 (1 excluded), not 1.0"),
        ("cells.augmentation.crop=-5", "crop must be at least 1, not -5"),
        ("cells.augmentation.scale=1", "scale must lie in 0 … 1 (1 excluded), not 1.0"),
        ("cells.augmentation.probability=1.5", "probability must lie in 0 … 1, not 1.5"),
        ("cells.target.sigma_um=0", "sigma_um must be more than 0, not 0.0"),
        ("cells.target.class_weights=1,-1,1", "class_weights must be at least 0, not -1.0"),
        ("cells.network.depth=9", "depth must lie in 1 … 5, not 9"),
        ("cells.network.decoder_channels=0", "decoder_channels must be at least 1, not 0"),
        ("cells.network.downsampling=3", "downsampling must divide the 1024 pixels of a patch, not be 3"),
        ("cells.coupling=leak", "'leak' does not fit"),
        ("cells.target.sigma_um.more=2", "'sigma_um' is a value, not a group"),
    ],
)
def test_wrong_settings_are_quoted_with_the_reason(setting: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        with_settings(COMPACT, [setting])
    assert str(raised.value).startswith(f"--set {setting}: ")
    assert message in str(raised.value)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_survive_json(name: str) -> None:
    preset = with_settings(PRESETS[name], ["cells.target.class_weights=1,2,3", "tissue.optimizer.ema=0.5"])
    document = json.loads(json.dumps(dataclasses.asdict(preset)))
    assert preset_from_json(document) == preset


def test_what_networks_take_and_give_follows_from_task_and_coupling() -> None:
    def shape(*settings: str) -> tuple[int, ...]:
        preset = with_settings(COMPACT, settings)
        networks = (preset.tissue.network, preset.cells.network)
        return tuple(number for n in networks for number in (n.context_channels, n.classes))

    assert shape() == shape("cells.coupling=annotated") == (0, 2, 2, 3)
    assert shape("cells.coupling=none") == (0, 2, 0, 3)
    assert shape("cells.coupling=joint") == (0, 2, 4, 5)
    assert shape("cells.coupling=image") == (0, 2, 4, 3)
    with pytest.raises(UsageError, match="no 'classes' here"):
        with_settings(COMPACT, ["cells.network.classes=5"])


def test_configuration_of_an_earlier_version_is_read() -> None:
    preset = PRESETS["compact-finetune-scales"]
    document = json.loads(json.dumps(dataclasses.asdict(preset)))
    expected = {**copy.deepcopy(document), "start": copy.deepcopy(document)}
    for task in ("tissue", "cells"):
        network = document[task]["network"]
        network["looks"] = network.pop("scales")
        for name in ("architecture", "context_channels", "classes"):
            del network[name]
    assert preset_from_json(document) == preset
    assert with_defaults({**document, "start": dict(document)}) == expected


@pytest.mark.parametrize(
    "setting",
    ["oversampling=1.5", "mpp=0", "frozen_epochs=-1", "optimizer.batch=0", "augmentation.probability=-1",
     "augmentation.shrink=1", "losses.np_dice=-1", "losses.nt_balance=2"],
)  # fmt: skip
def test_nuclei_settings_have_ranges_too(setting: str) -> None:
    from softctm.training.nuclei.config import NUCLEI_PRESETS

    name = setting.partition("=")[0].rpartition(".")[2]
    with pytest.raises(UsageError, match=rf"^--set {setting}: {name} must .*, not -?[0-9.]+$"):
        with_settings(NUCLEI_PRESETS["compact"], [setting])


def test_without_epochs_networks_are_only_initialized() -> None:
    assert with_settings(COMPACT, ["tissue.optimizer.epochs=0"]).tissue.optimizer.epochs == 0


@pytest.mark.parametrize(
    "words",
    ["train cells --data x --run x", "pretrain cells --data a=x --run x", "train nuclei --data x --run x",
     "train points --data a=x --run x", "folds x --data x", "phantom x"],
)  # fmt: skip
@pytest.mark.parametrize("seed", ["-1", "1.5", "4294967296"])
def test_seeds_outside_their_range_are_refused(
    words: str, seed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words.split(), "--seed", seed])
    assert ended.value.code == UsageError.exit_code
    assert "argument --seed: " in capsys.readouterr().err


def test_what_runs_started_from_is_compared_in_todays_names_too() -> None:
    run = json.loads(json.dumps(dataclasses.asdict(PRESETS["compact"])))
    pretrained = {"pretraining": "cells", "data": {"consep": 3}, "cells": copy.deepcopy(run["cells"])}
    pretrained["cells"]["coupling"] = "none"
    pretrained["cells"]["network"]["context_channels"] = 0
    new = {**run, "start": {"tissue": {**run, "start": run}, "cells": pretrained}}
    old = json.loads(json.dumps(new))
    by_task = old["start"]
    for optimizer in (
        old["cells"]["optimizer"],
        by_task["tissue"]["tissue"]["optimizer"],
        by_task["tissue"]["start"]["cells"]["optimizer"],
        by_task["cells"]["cells"]["optimizer"],
    ):
        del optimizer["tissue_factor"]
    for name in ("architecture", "context_channels", "classes"):
        del by_task["cells"]["cells"]["network"][name]
    assert old != new
    assert with_defaults(old) == with_defaults(new) == new
    assert with_defaults(by_task["cells"]) == pretrained


def test_a_recipe_under_a_name_of_its_own_is_filled_with_defaults() -> None:
    from softctm.training.point_guided.task import COMPACT as POINTS
    from softctm.training.point_guided.task import PointGuidedConfig

    def read(document: dict[str, object]) -> PointGuidedConfig:
        return config_from_json(PointGuidedConfig, document)

    recipe = json.loads(json.dumps(dataclasses.asdict(POINTS)))
    assert read(recipe) == POINTS
    new = {"seed": 1, "config": recipe, "start": {"config": copy.deepcopy(recipe)}}
    old = copy.deepcopy(new)
    del old["config"]["optimizer"]["tissue_factor"]
    del old["start"]["config"]["augmentation"]["superpixels"]
    assert part_with_defaults(old, read) == part_with_defaults(new, read) == new
    assert part_with_defaults({"config": {}}, read) == {"config": {}}
