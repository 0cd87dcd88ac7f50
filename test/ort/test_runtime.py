"""Sessions: the device really used, processors really there, one clear line when something fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from tiny_networks import network

from softctm.errors import DeviceError, ModelError
from softctm.ort import runtime as runtime_module
from softctm.ort.graphs import Graph
from softctm.ort.processors import available_processors, has_int8_arithmetic
from softctm.ort.runtime import OutOfDeviceMemoryError, Runtime, Session


def opened(runtime: Runtime, content: bytes, name: str) -> Session:
    return runtime.network(onnx.load_model_from_string(content), name)


without_cuda = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="ONNX Runtime has CUDA here"
)


@without_cuda
def test_cuda_is_refused_where_there_is_none() -> None:
    with pytest.raises(DeviceError, match="no usable CUDA device"):
        Runtime("cuda")


@without_cuda
def test_auto_falls_back_and_tells_only_who_has_the_cuda_build(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG", "softctm"):
        runtime = Runtime("auto")
    assert runtime.device == "cpu"
    assert runtime.notice is None  # whoever installed the CPU build knows
    assert "built without CUDA" in caplog.text
    monkeypatch.setattr(runtime_module, "_built_for_cuda", lambda: True)
    assert "running on the CPU: " in (Runtime("auto").notice or "")
    assert Runtime("cpu").notice is None


def test_what_is_read_from_a_value_outlives_it() -> None:
    runtime = Runtime("cpu")
    read = [runtime.value(np.full((3, 256, 256), k, np.float32)).numpy()[1] for k in range(100)]
    others = [np.full((3, 256, 256), -1, np.float32) for _ in range(100)]  # take what memory was freed
    assert [float(each.min()) for each in read] == [float(each.max()) for each in read] == list(range(100))
    assert len(others) == 100


def test_int8_pays_where_the_processor_says_so(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    for flags, expected in (
        ("flags\t\t: fpu sse2 avx512_vnni\n", True),
        ("flags : fpu amx_int8\n", True),
        ("Features : fp asimd asimddp\n", True),
        ("flags : fpu sse2 avx2\n", False),
        ("model name : avx512_vnni\n", False),
        ("", False),
    ):
        info.write_text("processor : 0\n" + flags)
        assert has_int8_arithmetic(info) is expected
    assert not has_int8_arithmetic(tmp_path / "gone")


def test_a_promised_provider_that_the_session_does_not_get_is_no_cuda(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu_only = runtime_module._open
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(
        runtime_module,
        "_open",
        lambda model, device, threads, arithmetic: cpu_only(model, "cpu", threads, arithmetic),
    )
    runtime_module.cuda_fault.cache_clear()
    try:
        with pytest.raises(DeviceError, match="could not start it"):
            Runtime("cuda")
        assert Runtime("auto").device == "cpu"
    finally:
        runtime_module.cuda_fault.cache_clear()


def test_sessions_compute_and_describe_themselves() -> None:
    runtime = Runtime("cpu")
    session = opened(runtime, network(0, 3, 2, size=64), "a network")
    assert session.inputs[0].shape == (None, 3, 64, 64)
    assert session.outputs[0].shape == (None, 2, 64, 64)
    image = np.random.default_rng(0).random((2, 3, 64, 64), np.float32)
    (output,) = session(runtime.value(image))
    plain = onnxruntime.InferenceSession(network(0, 3, 2, size=64), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(output.numpy(), plain.run(None, {"input": image})[0])


def test_a_graph_that_cannot_be_loaded_or_run_is_named() -> None:
    runtime = Runtime("cpu")
    graph = Graph()
    unknown = graph.model(graph.node("NoSuchOperator", graph.input("x", np.float32, (1,))))
    with pytest.raises(ModelError, match=r"cell\.onnx cannot be loaded: .*NoSuchOperator") as error:
        opened(runtime, unknown, "cell.onnx")
    assert "\n" not in str(error.value)
    session = opened(runtime, network(0, 3, 2, size=64), "cell.onnx")
    with pytest.raises(ModelError, match=r"cell\.onnx failed while running"):
        session(runtime.value(np.zeros((1, 4, 64, 64), np.float32)))


def test_running_out_of_memory_is_told_apart() -> None:
    runtime = Runtime("cpu")
    graph = Graph()
    shape = graph.input("shape", np.int64, (1,))
    session = opened(runtime, graph.model(graph.node("ConstantOfShape", shape)), "greedy.onnx")
    with pytest.raises(OutOfDeviceMemoryError, match=r"greedy\.onnx.*out of memory"):
        session(runtime.value(np.array([2**48])))


def test_nothing_is_written_to_stderr_even_when_a_network_fails() -> None:
    program = """
import numpy as np
import onnx
from softctm.errors import ModelError
from softctm.ort.runtime import Runtime
from tiny_networks import network
runtime = Runtime("auto")
session = runtime.network(onnx.load_model_from_string(network(0, 3, 2, size=64)), "cell.onnx")
session(runtime.value(np.zeros((1, 3, 64, 64), np.float32)))
for bad in (lambda: session(runtime.value(np.zeros((1, 4, 64, 64), np.float32))),
            lambda: runtime.network(onnx.ModelProto(), "cell.onnx")):
    try:
        bad()
        raise SystemExit("no error")
    except ModelError:
        pass
"""
    here = Path(__file__).parents[1]
    path = os.pathsep.join([str(here), str(here.parent / "src")])
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def cgroups(folder: Path, own: str, **files: str) -> tuple[Path, Path]:
    """A synthetic tree of control groups; a file's name has __ for each slash."""
    for name, content in files.items():
        path = (
            folder
            / "cgroup"
            / name.replace("__", "/").replace("cpu_max", "cpu.max").replace("cfs_", "cpu.cfs_")
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (folder / "own").write_text(own)
    return folder / "cgroup", folder / "own"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu_max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu_max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu_max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu_max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu_max": "nonsense\n"}, 8),
        ("0::/a/b\n", {"a__b__cpu_max": "max 100000", "a__cpu_max": "300000 100000"}, 3),
        ("0::/../../a\n", {"cpu_max": "400000 100000"}, 4),
        ("4:cpu,cpuacct:/x\n", {"cpu__x__cfs_quota_us": "250000", "cpu__x__cfs_period_us": "100000"}, 3),
        ("4:cpu,cpuacct:/x\n", {"cpu__cfs_quota_us": "-1", "cpu__cfs_period_us": "100000"}, 8),
        ("4:cpuset:/x\n", {"cpu__cfs_quota_us": "100000", "cpu__cfs_period_us": "100000"}, 8),
        ("", {}, 8),
        ("0::/\n", {"cpu_max": "6400000 100000\n"}, 8),
    ],
)
def test_processors_follow_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert available_processors(*cgroups(tmp_path, own, **files)) == expected


def test_processors_follow_the_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert available_processors(*cgroups(tmp_path, "0::/\n", cpu_max="max 100000")) == 1


def test_threads_of_all_networks_together_stay_within_a_containers_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtime_module, "available_processors", lambda: 64)
    assert Runtime("cpu", networks=6).threads * 6 <= 96
    assert Runtime("cpu", networks=1).threads == 64
