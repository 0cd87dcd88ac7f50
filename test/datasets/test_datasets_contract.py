"""What every dataset in the table can do; `RELEASES` makes a small one of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from training_cases import BC, TC, write_release

from softctm.datasets.pair_datasets import DATASETS
from softctm.errors import InputError

ROWS = [[(100, 200, BC), (300, 600, TC)], [], [(5, 6, TC)]]

RELEASES: dict[str, Callable[[Path], Path]] = {"ocelot": lambda folder: write_release(folder, ROWS)}
"""Dataset → writes three pairs of three patients with the cells of `ROWS`."""


def test_every_dataset_is_tested() -> None:
    assert RELEASES.keys() == DATASETS.keys()


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_pairs_come_in_order_with_patients_cells_tissue_and_patches(name: str, tmp_path: Path) -> None:
    pairs = DATASETS[name](RELEASES[name](tmp_path))
    assert [pair.id for pair in pairs] == sorted({pair.id for pair in pairs})
    assert len({pair.patient for pair in pairs}) == 3
    assert all(pair.patient and pair.organ for pair in pairs)
    for pair, rows in zip(pairs, ROWS, strict=True):
        cells = pair.cells()
        assert list(zip(cells.x, cells.y, cells.label, strict=True)) == rows
        assert set(np.unique(pair.tissue_labels())) <= {1, 2, 255}
        read = pair.read()
        np.testing.assert_array_equal(read.cell, pair.cell_patch())
        np.testing.assert_array_equal(read.tissue, pair.tissue_patch())
        assert read.name == pair.id


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_a_folder_without_the_dataset_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=str(tmp_path)):
        DATASETS[name](tmp_path)
