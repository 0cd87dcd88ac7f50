"""Networks of nuclei that are finished: they come back as they are, and changed data are spoken of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from drawn_nuclei import drawn

from softctm.training.loop import LoopConfig
from softctm.training.nuclei.augment import NucleiAugmentationConfig
from softctm.training.nuclei.config import NUCLEI_PRESETS
from softctm.training.nuclei.data import TrainingImage
from softctm.training.nuclei.task import build_nuclei_network, train_nuclei_network
from softctm.training.point_guided.task import COMPACT, train_point_guided

IMAGE = drawn("drawn/a", 0, tissue=1)
NUCLEI = NUCLEI_PRESETS["compact"]


def train_nuclei(cellvit: bool, folder: Path, image: TrainingImage) -> None:
    config = replace(
        NUCLEI,
        network="256" if cellvit else replace(NUCLEI.network, decoder_channels=32),
        optimizer=replace(NUCLEI.optimizer, epochs=0),
    )
    make = partial(build_nuclei_network, config, 3, 2)
    train_nuclei_network(config, [image], [], 3, 2, LoopConfig(), folder, lambda _: make())


def train_points(folder: Path, image: TrainingImage) -> None:
    config = replace(
        COMPACT,
        network=replace(COMPACT.network, decoder_channels=16),
        optimizer=replace(COMPACT.optimizer, epochs=0),
        augmentation=NucleiAugmentationConfig(crop=32),
    )
    train_point_guided(config, [image], [], LoopConfig(), folder)


def corrected(**parts: object) -> TrainingImage:
    return replace(IMAGE, **parts)


@pytest.mark.parametrize(
    ("train", "others"),
    [
        (
            partial(train_nuclei, False),
            [corrected(type_of=np.roll(IMAGE.type_of, 1)), corrected(tissue=0), corrected(tissue=-1)],
        ),
        (partial(train_nuclei, True), [corrected(image=255 - IMAGE.image)]),
        (train_points, [corrected(instances=np.roll(IMAGE.instances, 3, 1))]),
    ],
    ids=["nuclei", "cellvit", "points"],
)
def test_a_finished_network_is_kept_and_changed_data_are_spoken_of(
    train: Callable[[Path, TrainingImage], None],
    others: list[TrainingImage],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    train(tmp_path, IMAGE)
    path = tmp_path / "network.safetensors"
    before = path.read_bytes()
    train(tmp_path, IMAGE)
    assert not caplog.messages
    for other in others:
        caplog.clear()
        train(tmp_path, other)
        (message,) = caplog.messages
        assert message.startswith(f"{path}: was trained on data that have changed since")
    assert path.read_bytes() == before
