"""What only a GPU can show: 16-bit networks agree, memory stays small, too little is lived with."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.agreement import Agreement
from softctm.errors import DeviceError
from softctm.inference.detector import Detector
from softctm.model import find_weights, load_model
from softctm.ort.graphs import Graph
from softctm.ort.runtime import Runtime
from softctm.pair import PATCH_SIZE
from softctm.readers import open_pairs

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def cuda() -> None:
    """Skip, with the reason, where CUDA cannot be used."""
    try:
        Runtime("cuda")
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_card_finds_the_processors_cells(precision: Any) -> None:
    model, source = load_model(find_weights()), open_pairs(ROOT / "test/input")
    expected = Detector(model, device="cpu", views=2)
    found = Detector(model.in_precision(precision), device="cuda", views=2)
    agreement = Agreement()
    for index in range(len(source)):
        one, other = (way.predict(source.read(index), maps=True) for way in (expected, found))
        assert one.cell_probability is not None
        assert other.cell_probability is not None
        assert np.abs(one.cell_probability - other.cell_probability).max() < 1e-2
        agreement.add(one.points, other.points)
    assert agreement.expected > 300
    assert agreement.share >= 0.995


@pytest.fixture
def crowded() -> Iterator[None]:
    """Fill the card but for 6 GB."""
    cuda = ctypes.CDLL("libcudart.so.12")  # loaded with ONNX Runtime's provider
    free, total, block = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_void_p()
    assert cuda.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)) == 0
    if free.value <= 6e9:
        pytest.skip("the card has less than 6 GB free")
    assert cuda.cudaMalloc(ctypes.byref(block), ctypes.c_size_t(free.value - int(6e9))) == 0
    yield
    cuda.cudaFree(block)


def wide(channels: int, classes: int, activation: str | None = None) -> bytes:
    """A network that keeps 1 GB a view: 256 channels at full resolution."""
    random, graph = np.random.default_rng(channels), Graph()
    value = graph.input("input", np.float32, ("n", channels, PATCH_SIZE, PATCH_SIZE))
    for given, wanted in ((channels, 256), (256, classes)):
        weights = random.normal(0, given**-0.5, (wanted, given, 1, 1)).astype(np.float32)
        value = graph.node("Conv", value, graph.constant(weights))
    return graph.model(graph.node(activation, value, axis=1) if activation else value)


@pytest.mark.usefixtures("crowded")
def test_too_little_memory_halves_the_batch_and_finds_the_same(tmp_path: Path) -> None:
    (tmp_path / "tissue.onnx").write_bytes(wide(3, 2))
    (tmp_path / "cell_fold0.onnx").write_bytes(wide(5, 3, "Softmax"))
    model, pair = load_model(tmp_path), open_pairs(ROOT / "test/input").read(0)
    detector = Detector(model, device="cuda", views=8)
    found = detector.predict(pair, maps=True).cell_probability
    assert detector._tissue._batches.size < 8
    expected = Detector(model, device="cpu", views=8).predict(pair, maps=True).cell_probability
    assert found is not None
    assert expected is not None
    assert np.abs(found - expected).max() < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_networks_of_the_papers_size_take_less_than_8_gb(tmp_path: Path, precision: str) -> None:
    pytest.importorskip("torch")
    from benchmarks.random_model import write_random_model

    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "--memory-of",
        "detector",
        "--device",
        "cuda",
        "--views",
        "8",
    ]
    command += ["--weights", str(write_random_model(tmp_path, "resnet50")), "--precision", precision]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT).stdout
    assert 500 < json.loads(answer)["device"] < 8000
