"""What a run's folder says of what it began with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from softctm.errors import TrainingError
from softctm.training.config import in_json
from softctm.training.initialization import Start
from softctm.training.presets import PRESETS
from softctm.training.run_folder import inherited, keep_config

ROOT = Path(__file__).parents[2]


def test_licenses_of_all_beginnings_are_inherited_once() -> None:
    first = {"licenses": ["BY-NC"], "attributions": ["OCELOT"], "seed": 1}
    second = {"start": first, "licenses": ["BY-NC", "research"], "attributions": []}
    assert inherited({"seed": 2, "start": {"tissue": second, "cells": {"start": first}}}) == (
        ["BY-NC", "research"],
        ["OCELOT"],
    )
    assert inherited({"seed": 2}) == ([], [])


def test_the_default_models_licenses_go_on_with_its_networks() -> None:
    manifest = json.loads((ROOT / "model_weights" / "model.json").read_text())
    config = {**in_json(PRESETS["compact-finetune"]), "start": Start(ROOT / "model_weights").config}
    licenses, attributions = inherited(config)
    assert licenses == manifest["licenses"] == ["CC-BY-NC-4.0"]
    assert attributions == manifest["attributions"]
    assert len(attributions) > 1


def test_a_run_goes_on_though_it_did_not_know_of_licenses(tmp_path: Path) -> None:
    start = {"seed": 1}
    keep_config(tmp_path, {"seed": 2, "start": start})
    keep_config(tmp_path, {"seed": 2, "start": {**start, "licenses": ["BY-NC"], "attributions": []}})
    with pytest.raises(TrainingError, match=r"another start\.seed;"):
        keep_config(tmp_path, {"seed": 2, "start": {"seed": 3, "licenses": ["BY-NC"]}})
