"""Batches: the same with any number of workers, and what happens where workers cannot be had."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from softctm.errors import TrainingError
from softctm.training import feeding
from softctm.training.arrays import TrainingArrays
from softctm.training.config import AugmentationConfig, OptimizerConfig
from softctm.training.crops import CropDataset
from softctm.training.feeding import Draw, MicroBatch, StepSampler, feed_from
from softctm.training.loop import LoopConfig, train
from softctm.training.losses import tissue_cross_entropy
from softctm.training.nuclei.config import NUCLEI_PRESETS
from softctm.training.nuclei.data import NucleiPatches, TrainingImage
from softctm.training.sampling import draw

PARTS = [MicroBatch(step, first, first + 2) for step in range(5) for first in (0, 2)]
STRONG = AugmentationConfig(crop=48, stain=0.2, magnified=2.0, probability=1.0)


def choose(step: int) -> np.ndarray:
    return draw(np.full(6, 1 / 6), 4, 3, step)


@pytest.fixture
def crops() -> CropDataset:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6, 3, 64, 64)).astype(np.uint8)
    labels = random.integers(-1, 2, (6, 64, 64)).astype(np.int8)
    return CropDataset(TrainingArrays(images, labels, np.ones((6, 2))), STRONG, 48, 1, 3)


def test_sampler_gives_each_part_its_positions_and_patches() -> None:
    drawn = list(StepSampler(PARTS[2:4], choose))
    assert len(StepSampler(PARTS[2:4], choose)) == 2
    first, second, third, fourth = choose(1)
    assert drawn == [[Draw(1, 0, first), Draw(1, 1, second)], [Draw(1, 2, third), Draw(1, 3, fourth)]]


def test_batches_are_the_same_with_workers_without_and_from_any_step_on(crops: CropDataset) -> None:
    expected = list(feed_from(crops, choose, 0)(PARTS))
    assert [images.shape for images, _ in expected] == [(2, 3, 48, 48)] * 10
    assert not torch.equal(expected[0][0], expected[1][0])
    for workers, start in ((1, 0), (2, 0), (2, 6), (0, 6)):
        found = list(feed_from(crops, choose, workers)(PARTS[start:]))
        assert len(found) == len(PARTS) - start
        for ours, theirs in zip(found, expected[start:], strict=True):
            assert torch.equal(ours[0], theirs[0])
            assert torch.equal(ours[1], theirs[1])


def test_large_patches_give_the_same_crops_in_a_worker_of_one_thread() -> None:
    # Sums over more than 32,768 numbers are shared by PyTorch's threads, of which workers have one.
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (2, 3, 512, 512)).astype(np.uint8)
    labels = random.integers(0, 2, (2, 512, 512)).astype(np.int8)
    large = CropDataset(TrainingArrays(images, labels, np.ones((2, 2))), STRONG, 448, 1, 3)
    parts = [MicroBatch(step, 0, 1) for step in range(6)]
    results = [list(feed_from(large, lambda _: np.array([1]), workers)(parts)) for workers in (0, 1)]
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours[0], theirs[0])


def test_nuclei_give_the_same_crops_with_any_number_of_threads() -> None:
    random = np.random.default_rng(2)
    pixels = random.integers(0, 256, (600, 600, 3)).astype(np.uint8)
    image = TrainingImage("a/a", pixels, np.ones((600, 600), np.int32), np.array([0, 1]))
    recipe = replace(NUCLEI_PRESETS["cellvit-256"].augmentation, crop=512, probability=1.0, superpixels=0.0)
    patches = NucleiPatches([image], 2, recipe, seed=5)
    before, crops = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            crops.append([patches[Draw(step, 0, 0)][0] for step in range(4)])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for others in crops[1:]:
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(crops[0], others, strict=True))


def test_killed_and_resumed_with_other_workers_ends_bit_for_bit_the_same(
    crops: CropDataset, tmp_path: Path
) -> None:
    config = OptimizerConfig("adamw", 0.01, 0.1, "one-cycle", 3, batch=4, accumulation=2, ema=0.9)

    class Killed(Exception):
        pass

    def run(name: str, workers: int, die_at: int = 99) -> dict[str, Tensor]:
        def feed(parts):  # type: ignore[no-untyped-def]
            for part, batch in zip(parts, feed_from(crops, choose, workers)(parts), strict=True):
                if part.step == die_at:
                    raise Killed
                yield batch

        torch.manual_seed(5)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3, padding=1), torch.nn.Dropout(0.3))
        loop = LoopConfig(seed=3, checkpoint_minutes=-1.0, bfloat16=False)
        trained = train(network, feed, tissue_cross_entropy, 3, config, loop, tmp_path / name)
        return dict(trained.state_dict())

    whole = run("whole", 0)
    with pytest.raises(Killed):
        run("killed", 2, die_at=4)
    for weights in (run("killed", 1), run("workers", 2)):
        assert all(torch.equal(value, whole[name]) for name, value in weights.items())


@pytest.mark.parametrize("free", [None, 1000])
def test_without_enough_shared_memory_the_training_process_makes_batches(
    crops: CropDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    free: int | None,
) -> None:  # fmt: skip
    expected = list(feed_from(crops, choose, 0)(PARTS))
    if free is None:
        monkeypatch.setattr(feeding, "SHARED_MEMORY", tmp_path / "shm")
    else:
        monkeypatch.setattr(feeding.shutil, "disk_usage", lambda _: _Usage(free))
    found = list(feed_from(crops, choose, 2)(PARTS))
    assert all(torch.equal(ours[0], theirs[0]) for ours, theirs in zip(found, expected, strict=True))
    (message,) = caplog.messages
    assert "is missing or too small for 2 worker processes" in message
    assert "--workers 0" in message


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


class Deadly(Dataset):  # type: ignore[type-arg]
    """Its third sample kills the process that makes it, as the kernel does for lack of memory."""

    def __getitem__(self, drawn: Draw) -> tuple[Tensor, Tensor]:
        if drawn.step == 2:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(3), torch.zeros(1)


def test_a_worker_that_dies_is_reported_in_one_line() -> None:
    with pytest.raises(TrainingError, match=r"a worker process died.*fewer --workers") as raised:
        list(feed_from(Deadly(), choose, 1)(PARTS))
    assert "\n" not in str(raised.value)


def test_batches_may_hold_several_targets_by_name() -> None:
    class Several(Dataset):  # type: ignore[type-arg]
        def __getitem__(self, drawn: Draw) -> tuple[Tensor, dict[str, Tensor]]:
            return torch.zeros(3, 4, 4), {"types": torch.zeros(4, 4), "distances": torch.ones(2, 4, 4)}

    images, targets = next(iter(feed_from(Several(), choose, 1)(PARTS)))
    assert images.shape == (2, 3, 4, 4)
    assert targets["distances"].shape == (2, 2, 4, 4)


def test_training_modules_that_list_presets_need_no_pytorch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import softctm.training.config, softctm.commands.train, softctm.commands.export\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
