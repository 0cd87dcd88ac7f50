"""The loop: learning rates, stopping and going on, averaging, accumulation, what stops it."""

from __future__ import annotations

import copy
import csv
import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_cases import Batch, TinyNetwork, tiny_batch, tiny_feed, tiny_network

from softctm.errors import OutputError, TrainingError, UsageError
from softctm.storage.lock import locked
from softctm.training.config import OptimizerConfig
from softctm.training.loop import LoopConfig, learning_rate, train
from softctm.training.losses import tissue_cross_entropy

PER_EPOCH, EPOCHS = 3, 3
STEPS = PER_EPOCH * EPOCHS
ADAM = OptimizerConfig("adamw", 0.01, 0.1, "one-cycle", EPOCHS, batch=8, encoder_factor=0.5, ema=0.9)
SGD = OptimizerConfig("sgd", 0.05, 0.01, "exponential", EPOCHS, batch=8)
PLAIN = OptimizerConfig("adam", 0.01, 0.0, "constant", EPOCHS, batch=8, accumulation=2)
EVERY_STEP = LoopConfig(seed=3, checkpoint_minutes=-1.0, bfloat16=False)


class Killed(Exception):
    """Stands for a kill between two steps."""


def killed_before(step: int, batch: Batch = tiny_batch) -> Batch:
    """A batch function that ends the run when the given step begins."""

    def batch_or_die(now: int, first: int, last: int) -> tuple[Tensor, Tensor]:
        if now == step:
            raise Killed
        return batch(now, first, last)

    return batch_or_die


def run(
    folder: Path,
    config: OptimizerConfig,
    *,
    batch: Batch = tiny_batch,
    loop: LoopConfig = EVERY_STEP,
    network: nn.Module | None = None,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
) -> nn.Module:
    network = network if network is not None else tiny_network(dropout=0.3, batch_norm=True)
    return train(network, tiny_feed(batch), tissue_cross_entropy, PER_EPOCH, config, loop, folder, validate)


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    """Bit for bit, buffers included."""
    ours, theirs = first.state_dict(), second.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours) and ours.keys() == theirs.keys()


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.4 / 25),  # starts at a 25th
        (5, 0.4 * (1 / 25 + 1) / 2),  # half-way up
        (10, 0.4),  # a tenth of the steps: the top
        (55, 0.4 * (1 + 1 / 1000) / 2),  # half-way down
        (100, 0.4 / 1000),  # where the last step would lead
    ],
)
def test_one_cycle_by_hand(step: int, expected: float) -> None:
    config = OptimizerConfig("adamw", 0.4, 0.0, "one-cycle", epochs=10, batch=1)
    assert learning_rate(config, step, 100, 10) == pytest.approx(expected)


def test_exponential_falls_once_an_epoch() -> None:
    config = OptimizerConfig("sgd", 0.2, 0.0, "exponential", epochs=100, batch=1)
    rates = [learning_rate(config, step, 1000, 10) for step in (0, 9, 10, 25)]
    assert rates == pytest.approx([0.2, 0.2, 0.2 * 0.97, 0.2 * 0.97**2])


def test_constant_stays() -> None:
    config = OptimizerConfig("adam", 8e-4, 0.0, "constant", epochs=150, batch=1)
    assert {learning_rate(config, step, 1500, 10) for step in (0, 700, 1499)} == {8e-4}


@pytest.mark.parametrize("config", [ADAM, SGD, PLAIN], ids=["adamw-ema", "sgd", "accumulated"])
@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
def test_killed_and_resumed_ends_bit_for_bit_like_uninterrupted(
    tmp_path: Path, config: OptimizerConfig, bfloat16: bool
) -> None:
    loop = replace(EVERY_STEP, bfloat16=bfloat16)
    whole = run(tmp_path / "whole", config, loop=loop)
    for step in (1, 4, STEPS - 1):
        torch.rand(step)  # what happened before in the process must not matter
        with pytest.raises(Killed):
            run(tmp_path / "killed", config, loop=loop, batch=killed_before(step))
    # The network that a new process brings has other weights: the checkpoint's count.
    other = TinyNetwork(dropout=0.3, batch_norm=True)
    resumed = run(tmp_path / "killed", config, loop=loop, network=other)
    assert same_weights(whole, resumed)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "killed")


def test_resumes_from_a_checkpoint_that_is_several_steps_old(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", ADAM)
    killed = tmp_path / "killed"
    with pytest.raises(Killed):
        run(killed, ADAM, batch=killed_before(4))
    old = (killed / "checkpoint.pt").read_bytes()
    with pytest.raises(Killed):
        run(killed, ADAM, batch=killed_before(STEPS - 1))
    (killed / "checkpoint.pt").write_bytes(old)
    assert same_weights(whole, run(killed, ADAM))
    assert metrics(tmp_path / "whole") == metrics(killed)


def test_finished_run_is_loaded_and_trains_no_further(tmp_path: Path) -> None:
    whole = run(tmp_path, ADAM)
    assert same_weights(whole, run(tmp_path, ADAM, batch=killed_before(STEPS)))


def test_killed_while_writing_a_checkpoint_keeps_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole", ADAM)
    save, killed, written = torch.save, tmp_path / "killed", 0

    def save_half(state: object, path: Path) -> None:
        nonlocal written
        save(state, path)
        written += 1
        if written == 4:
            path.write_bytes(path.read_bytes()[:100])
            raise Killed

    monkeypatch.setattr(torch, "save", save_half)
    with pytest.raises(Killed):
        run(killed, ADAM)
    monkeypatch.undo()
    assert same_weights(whole, run(killed, ADAM))


def test_learns(tmp_path: Path) -> None:
    config = replace(ADAM, epochs=40, weight_decay=0.0, learning_rate=0.05)
    run(tmp_path, config, network=tiny_network(), loop=LoopConfig(bfloat16=False))
    losses = [float(row["loss"]) for row in metrics(tmp_path)]
    assert len(losses) == 40
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("ema", [0.5, 0.98])
def test_averaged_weights_are_the_exponential_moving_average(tmp_path: Path, ema: float) -> None:
    network = tiny_network(batch_norm=True)
    states: list[dict[str, Tensor]] = []

    def batch(step: int, first: int, last: int) -> tuple[Tensor, Tensor]:
        states.append(copy.deepcopy(network.state_dict()))
        return tiny_batch(step, first, last)

    averaged = run(tmp_path, replace(ADAM, ema=ema), batch=batch, network=network)
    states.append(copy.deepcopy(network.state_dict()))
    assert len(states) == STEPS + 1
    for name, value in averaged.state_dict().items():
        if not value.dtype.is_floating_point:
            assert torch.equal(value, states[-1][name])
            continue
        expected = states[0][name].double()
        for step in range(1, STEPS + 1):
            decay = min(ema, step / (step + 10))  # the first steps weigh little: they are far from the end
            expected = decay * expected + (1 - decay) * states[step][name].double()
        torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-6)


def test_without_averaging_the_last_weights_are_kept(tmp_path: Path) -> None:
    network = tiny_network()
    assert same_weights(network, run(tmp_path, SGD, network=network))


def test_encoder_follows_its_own_learning_rate(tmp_path: Path) -> None:
    network, before = tiny_network(), tiny_network().state_dict()
    run(tmp_path, replace(PLAIN, encoder_factor=0.0), network=network)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]) == ("encoder" in name)


class TwoBranches(nn.Module):
    """A network with a tissue branch; the mean of both is its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.tissue = tiny_network(), tiny_network()

    def forward(self, x: Tensor) -> Tensor:
        return (self.cells(x) + self.tissue(x)) / 2


@pytest.mark.parametrize("of_encoders", [0.0, 1.0])
@pytest.mark.parametrize("of_tissue", [0.0, 1.0])
def test_a_tissue_branch_follows_its_own_learning_rate(
    tmp_path: Path, of_encoders: float, of_tissue: float
) -> None:
    network, before = TwoBranches(), TwoBranches().state_dict()
    run(tmp_path, replace(PLAIN, encoder_factor=of_encoders, tissue_factor=of_tissue), network=network)
    for name, value in network.state_dict().items():
        moves = (of_tissue or not name.startswith("tissue.")) and (of_encoders or "encoder" not in name)
        assert torch.equal(value, before[name]) == (not moves)


def test_a_checkpoint_that_knows_no_tissue_factor_is_gone_on_from(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path, PLAIN, batch=killed_before(4))
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    del state["identity"]["tissue_factor"]
    torch.save(state, path)
    with pytest.raises(TrainingError, match="from a run with another tissue_factor"):
        run(tmp_path, replace(PLAIN, tissue_factor=0.5))
    run(tmp_path, PLAIN)


def test_first_step_of_sgd_by_hand(tmp_path: Path) -> None:
    network, reference = tiny_network(), tiny_network()
    images, labels = tiny_batch(0, 0, 8)
    tissue_cross_entropy(reference(images), labels).backward()
    with pytest.raises(Killed):
        run(tmp_path, SGD, network=network, batch=killed_before(1))
    for (name, now), start in zip(network.named_parameters(), reference.parameters(), strict=True):
        assert start.grad is not None
        gradient = start.grad + SGD.weight_decay * start
        expected = start - SGD.learning_rate * 1.9 * gradient  # Nesterov: once itself, 0.9 as momentum
        torch.testing.assert_close(now, expected, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("accumulation", [2, 4, 8])
def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path: Path, accumulation: int) -> None:
    parts = []

    def batch(step: int, first: int, last: int) -> tuple[Tensor, Tensor]:
        parts.append((step, first, last))
        return tiny_batch(step, first, last)

    whole = run(tmp_path / "whole", SGD, network=tiny_network())
    config = replace(SGD, accumulation=accumulation)
    accumulated = run(tmp_path / "parts", config, network=tiny_network(), batch=batch)
    for ours, theirs in zip(whole.parameters(), accumulated.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    size = 8 // accumulation
    assert parts[:accumulation] == [(0, i * size, (i + 1) * size) for i in range(accumulation)]
    assert [float(row["loss"]) for row in metrics(tmp_path / "parts")] == pytest.approx(
        [float(row["loss"]) for row in metrics(tmp_path / "whole")], rel=1e-4
    )


def test_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a batch of 8 in 3 parts cannot be shared evenly by 1 process;"):
        run(tmp_path, replace(SGD, accumulation=3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_gradient_that_is_not_finite_stops_and_is_named(tmp_path: Path, bad: float) -> None:
    def batch(step: int, first: int, last: int) -> tuple[Tensor, Tensor]:
        images, labels = tiny_batch(step, first, last)
        return (images * bad if step == 5 else images), labels

    with pytest.raises(
        TrainingError, match=r"step 5: the gradient of body\.\S+ is not finite; lower"
    ) as raised:
        run(tmp_path, SGD, batch=batch, network=tiny_network())
    named = str(raised.value).split("gradient of ")[1].split()[0]
    assert named in dict(tiny_network().named_parameters())
    # Nothing was spoilt: with sound data the run goes on from the step before.
    assert same_weights(
        run(tmp_path, SGD, network=tiny_network()), run(tmp_path / "whole", SGD, network=tiny_network())
    )


@pytest.mark.parametrize(
    ("config", "loop", "named"),
    [
        (replace(ADAM, learning_rate=0.02), EVERY_STEP, "learning_rate"),
        (replace(ADAM, epochs=4), EVERY_STEP, "epochs, steps"),
        (ADAM, replace(EVERY_STEP, seed=4), "seed"),
        (ADAM, replace(EVERY_STEP, bfloat16=True), "bfloat16"),
    ],
)
def test_checkpoint_of_another_configuration_is_refused(
    tmp_path: Path, config: OptimizerConfig, loop: LoopConfig, named: str
) -> None:
    with pytest.raises(Killed):
        run(tmp_path, ADAM, batch=killed_before(2))
    checkpoint = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(TrainingError, match=rf"checkpoint\.pt: from a run with another {named}; choose"):
        run(tmp_path, config, loop=loop)
    assert (tmp_path / "checkpoint.pt").read_bytes() == checkpoint


def test_a_checkpoint_with_a_setting_that_there_is_no_more_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path, ADAM, batch=killed_before(2))
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    state["identity"]["momentum"] = 0.5
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match="from a run with another momentum; choose"):
        run(tmp_path, ADAM)


def test_how_often_checkpoints_are_written_may_change(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path / "killed", ADAM, batch=killed_before(2))
    resumed = run(tmp_path / "killed", ADAM, loop=replace(EVERY_STEP, checkpoint_minutes=60))
    assert same_weights(resumed, run(tmp_path / "whole", ADAM))


def test_metrics_have_a_row_an_epoch_and_validation_where_it_was_due(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "softctm")
    modes = []

    def validate(network: nn.Module) -> dict[str, float]:
        modes.append(network.training)
        return {"validation_mean_f1": 0.25 * len(modes)}

    run(tmp_path, ADAM, loop=replace(EVERY_STEP, validate_epochs=2), validate=validate)
    rows = metrics(tmp_path)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [row["validation_mean_f1"] for row in rows] == ["", "0.25", "0.5"]  # every second, and the last
    assert modes == [False, False]
    rates = [learning_rate(ADAM, step, STEPS, PER_EPOCH) for step in (2, 5, 8)]
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx(rates)
    assert np.isfinite([float(row["loss"]) for row in rows]).all()
    printed = caplog.messages
    assert len(printed) == EPOCHS
    assert "epoch 2/3" in printed[1]
    assert "validation_mean_f1 0.25" in printed[1]
    assert "min left" in printed[1]
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a folder: tag → (step, value) in order."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_a_run_that_is_resumed_has_one_event_file_with_each_epoch_once(tmp_path: Path) -> None:
    run(tmp_path / "whole", ADAM)
    killed = tmp_path / "killed"
    for step in (4, 7):  # in the second and in the third epoch
        with pytest.raises(Killed):
            run(killed, ADAM, batch=killed_before(step))
    run(killed, ADAM)
    assert len(list(killed.glob("events.out.tfevents.*"))) == 1
    assert [step for step, _ in scalars(killed)["loss"]] == [1, 2, 3]
    assert scalars(killed) == scalars(tmp_path / "whole")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None], ids=["empty", "foreign", "truncated"])
def test_damaged_checkpoint_is_named_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    with pytest.raises(Killed):
        run(tmp_path, ADAM, batch=killed_before(2))
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000] if content is None else content)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: cannot be read \(.*\); delete it") as raised:
        run(tmp_path, ADAM)
    assert "\n" not in str(raised.value)


def test_full_disk_leaves_the_last_checkpoint_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole", ADAM)
    killed, save = tmp_path / "killed", torch.save

    def full(state: object, path: Path) -> None:
        save(state, path)
        if state["step"] == 4:  # type: ignore[index]
            path.write_bytes(path.read_bytes()[:100])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        OutputError, match=r"checkpoint\.pt cannot be written \(.*No space left.*\); make room"
    ):
        run(killed, ADAM)
    monkeypatch.undo()
    assert not list(killed.glob("*.partial*"))
    assert same_weights(whole, run(killed, ADAM))


def test_one_process_at_a_time_trains_a_network(tmp_path: Path) -> None:
    with (
        locked(tmp_path / ".lock"),
        pytest.raises(OutputError, match=rf"{tmp_path.name}: is being trained by process {os.getpid()} on"),
    ):
        run(tmp_path, SGD)
    run(tmp_path, SGD)


def test_without_locks_a_network_is_trained_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    run(tmp_path, SGD)
    assert "its file system has no locks; see that nobody else trains it" in caplog.text


def test_too_little_memory_on_the_gpu_is_told_with_what_to_do(tmp_path: Path) -> None:
    def full(step: int, first: int, last: int) -> tuple[Tensor, Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    with pytest.raises(TrainingError, match=r"does not fit into the GPU's memory; raise optimizer.accum"):
        run(tmp_path, SGD, batch=full)


def test_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    def train_on(data: str, batch: Batch = tiny_batch) -> nn.Module:
        network = tiny_network()
        return train(
            network, tiny_feed(batch), tissue_cross_entropy, PER_EPOCH, ADAM, EVERY_STEP, tmp_path, data=data
        )

    with pytest.raises(Killed):
        train_on("these", killed_before(2))
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: from a run with another data"):
        train_on("others")
    train_on("these")


def test_validation_changes_nothing(tmp_path: Path) -> None:
    loop = replace(EVERY_STEP, validate_epochs=1)

    def validate(network: nn.Module) -> dict[str, float]:
        return {"value": network(torch.rand(1, 3, 8, 8)).sum().item()}

    validated = run(tmp_path / "validated", SGD, loop=loop, validate=validate)
    assert same_weights(validated, run(tmp_path / "not", SGD))


SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from training_cases import tiny_feed, tiny_network
from softctm.training.config import OptimizerConfig
from softctm.training.loop import LoopConfig, train
from softctm.training.losses import tissue_cross_entropy
config = OptimizerConfig("sgd", 0.05, 0.01, "exponential", 3, batch=8, accumulation=2, ema=0.9)
loop, folder = LoopConfig(bfloat16=False), Path(sys.argv[1])
trained = train(tiny_network(), tiny_feed(), tissue_cross_entropy, 3, config, loop, folder)
if torch.distributed.is_initialized():
    torch.distributed.barrier()
    if torch.distributed.get_rank() == 0:
        torch.save(trained.state_dict(), sys.argv[1] + "/trained.pt")
    torch.distributed.destroy_process_group()
else:
    torch.save(trained.state_dict(), sys.argv[1] + "/trained.pt")
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    here = Path(__file__).parent
    source = here.parents[1] / "src"
    environment = os.environ | {"PYTHONPATH": f"{here}{os.pathsep}{source}", "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    weights = []
    for name, launcher in (("one", []), ("two", torchrun)):
        command = [sys.executable, *launcher, str(tmp_path / "script.py"), str(tmp_path / name)]
        subprocess.run(command, env=environment, check=True, timeout=1800)
        weights.append(torch.load(tmp_path / name / "trained.pt", weights_only=True))
    assert metrics(tmp_path / "two")[0].keys() == metrics(tmp_path / "one")[0].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-4, atol=1e-6)
