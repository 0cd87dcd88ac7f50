"""What holds for every post-processing method in the table."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import numpy as np
import pytest

from softctm.ort.runtime import Runtime
from softctm.points import DetectedCells
from softctm.postprocessing.methods import METHODS, name_of, open_decoder, settings_from

CELL_METHODS = ("peaks", "watershed")


@pytest.mark.parametrize("name", METHODS)
def test_settings_are_frozen_checked_and_known_by_name(name: str) -> None:
    settings = settings_from(name, {})
    assert is_dataclass(settings)
    assert settings == METHODS[name].settings()
    assert name_of(settings) == name
    first = fields(settings)[0].name
    with pytest.raises(AttributeError):
        setattr(settings, first, 1)
    with pytest.raises(ValueError, match=r"postprocessing\.no_such_setting"):
        settings_from(name, {"no_such_setting": 1})
    with pytest.raises(ValueError, match=rf"postprocessing\.{first}"):
        settings_from(name, {first: "nonsense"})


def test_a_method_that_is_not_known_is_named() -> None:
    with pytest.raises(ValueError, match="'magic' is not known; there are peaks"):
        settings_from("magic", {})


@pytest.mark.parametrize("name", CELL_METHODS)
def test_cell_methods_find_one_drawn_cell_and_none_in_a_flat_map(name: str) -> None:
    runtime = Runtime("cpu")
    decode = open_decoder(settings_from(name, {}), runtime)
    rows, columns = np.mgrid[:128, :128]
    tumor = np.exp(-((rows - 50) ** 2 + (columns - 70) ** 2) / (2 * 6.0**2)).astype(np.float32)
    maps = np.stack([1 - tumor, 0 * tumor, tumor])
    found = decode({"cells": runtime.value(maps[None])})
    assert isinstance(found, DetectedCells)
    assert (found.points.x.tolist(), found.points.y.tolist(), found.points.label.tolist()) == (
        [70],
        [50],
        [2],
    )
    np.testing.assert_allclose(found.probability[0].sum(), 1, atol=1e-5)
    assert 0 < found.height[0] <= 1
    flat = decode({"cells": runtime.value(np.full((1, 3, 128, 128), 1 / 3, np.float32))})
    assert len(flat.points) == len(flat.probability) == len(flat.height) == 0
