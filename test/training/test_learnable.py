"""What there is to learn, said before training starts."""

from __future__ import annotations

import numpy as np
import pytest

from softctm.errors import TrainingError
from softctm.training.learnable import check_learnable

NAMES = ("background cell", "tumor cell")


def test_counts_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "softctm")
    check_learnable("cells network of fold 2", np.array([[3.0, 4.0], [0.0, 2.0]]), NAMES, "cells", 2)
    assert caplog.messages == [
        "cells network of fold 2: learns from 2 pairs of 2 patients; cells: background cell 3, tumor cell 6"
    ]


def test_one_missing_class_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    check_learnable("cells network of fold 0", np.array([[3.0, 0.0]]), NAMES, "cells", 1)
    assert caplog.messages == [
        "cells network of fold 0: no cells of the class tumor cell among its 1 pairs: "
        "the network cannot learn to find it"
    ]


def test_nothing_to_learn_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"fold 1: there is nothing to learn: its 3 pairs have no anno"):
        check_learnable("tissue network of fold 1", np.zeros((3, 2)), NAMES, "pixels of known tissue", 1)


def test_cells_of_unknown_class_are_learned_from_but_not_missed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "softctm")
    kinds = {"samples": "images", "unknown": "cell of unknown class"}
    check_learnable("cells network of pretraining", np.array([[3, 4, 0]]), NAMES, "cells", **kinds)
    assert caplog.messages == [
        "cells network of pretraining: learns from 1 images; cells: background cell 3, tumor cell 4, "
        "cell of unknown class 0"
    ]
    caplog.clear()
    check_learnable("cells network of pretraining", np.array([[0, 0, 5]]), NAMES, "cells", **kinds)
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    with pytest.raises(TrainingError, match="its 2 images have no annotated cells"):
        check_learnable("cells network of pretraining", np.zeros((2, 3)), NAMES, "cells", **kinds)
