"""ONNX Runtime sessions: which device, how many threads, whose memory; values stay on the device."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from softctm.choices import DeviceChoice, Precision
from softctm.errors import DeviceError, ModelError, SoftCTMError
from softctm.ort.graphs import Graph
from softctm.ort.passes import rewrite
from softctm.ort.processors import available_processors

Device = Literal["cpu", "cuda"]
Arithmetic = Literal["exact", "float32", "float16"]
"""How CUDA multiplies: in full precision; as is usual for networks, 32-bit numbers, with TF32's shorter
mantissa where the card has it; 16-bit numbers."""
Value: TypeAlias = onnxruntime.OrtValue
"""An array where the networks run: in main memory, or on the GPU."""

_log = logging.getLogger(__name__)

_FATAL_ONLY = 4
_MAX_POOL_THREADS = 96
"""Threads of all sessions together; a container may be held to 128 of them."""


class OutOfDeviceMemoryError(DeviceError):
    """A session did not get the memory it needs; a smaller batch may fit."""


@dataclass(frozen=True)
class Port:
    """One input or output of a session: its name, element type and axis lengths (None where left open)."""

    name: str
    kind: str
    shape: tuple[int | None, ...]


class Runtime:
    """Opens sessions on one device.

    Parameters
    ----------
    device : "auto", "cpu" or "cuda"
        What is asked for; `auto` takes the CPU where there is no usable CUDA, and says so in `notice`.
    networks : int
        How many networks will be loaded; the threads are shared out among them.
    callers : int
        From how many threads at once the networks will be called; the processors are shared out among them.
    precision : "float32" or "float16"
        What the networks compute in; see `softctm.ort.passes.float16`. Everything between them is 32-bit.

    Attributes
    ----------
    device : "cpu" or "cuda"
        What the sessions really run on, as a session answered, not as the installation promises.
    precision : "float32", "float16" or "int8"
        As given.
    notice : str or None
        Why `auto` fell back to the CPU though this ONNX Runtime is built for CUDA, and that a precision saves
        nothing on this device.
    callers : int
        As given, but one on a GPU. Fewer processors do not change it: sums are added in the same
        order everywhere, so that machines and workers give the same results to the last bit.
    threads : int
        Threads of each network on the CPU, shared by the calls that are in it at once.

    Raises
    ------
    DeviceError
        If "cuda" is asked for and a session does not get it.
    """

    def __init__(
        self,
        device: DeviceChoice = "auto",
        networks: int = 1,
        precision: Precision = "float32",
        callers: int = 1,
    ) -> None:
        onnxruntime.set_default_logger_severity(_FATAL_ONLY)
        onnxruntime.disable_telemetry_events()
        processors = available_processors()
        self.callers = callers
        share = math.ceil(processors / min(callers, processors))
        self.threads = min(share, max(1, _MAX_POOL_THREADS // max(1, networks)))
        self.device: Device = "cpu"
        self.precision = precision
        self.notice: str | None = None
        if device != "cpu":
            fault = cuda_fault()
            if fault is None:
                self.device, self.callers = "cuda", 1
            elif device == "cuda":
                raise DeviceError(f"no usable CUDA device: {fault}; use --device cpu or auto")
            elif _built_for_cuda():
                self.notice = f"running on the CPU: {fault}"
            else:  # whoever installed the CPU build knows
                _log.debug("running on the CPU: %s", fault)
        if precision == "float16" and self.device == "cpu":
            notice = self.notice or "running on the CPU"
            self.notice = f"{notice}; float16 saves no time there, because its arithmetic is 32-bit"
        if precision == "int8" and self.device == "cuda":
            self.notice = "int8 is made for processors; float16 is faster on a GPU"
        _share_memory(self.device)

    def network(self, model: onnx.ModelProto, name: str) -> Session:
        """Rewrite a network for this device and precision, in place, and open it; messages call it `name`."""
        try:
            rewrite(model, self.precision, self.device)
        except Exception as error:
            raise _named(error, name, f"cannot be made to compute in {self.precision}") from error
        arithmetic: Arithmetic = "float16" if self.precision == "float16" else "float32"
        return Session(model.SerializeToString(), name, self.device, self.threads, arithmetic)

    def helper(self, model: bytes, name: str) -> Session:
        """Open a small graph of our own: full precision, one thread (it is done before a second wakes)."""
        return Session(model, name, self.device, threads=1)

    def value(self, array: NDArray[Any]) -> Value:
        """Copy an array to the device; what is read back by `numpy()` may outlive the value."""
        array = np.ascontiguousarray(array)
        if self.device != "cpu":
            return Value.ortvalue_from_numpy(array, self.device, 0)
        # That call would borrow the array's memory, which is freed with the value, though still read.
        value = Value.ortvalue_from_shape_and_type(array.shape, array.dtype.type, self.device, 0)
        value.update_inplace(array)
        return value


class Session:
    """A loaded graph. Calling it with the inputs in order gives the outputs in order, all on the device.

    Attributes
    ----------
    name : str
    inputs, outputs : tuple of Port

    Raises
    ------
    ModelError
        If the graph cannot be loaded, or fails while running.
    OutOfDeviceMemoryError
        If memory runs out.
    """

    def __init__(
        self, model: bytes, name: str, device: Device, threads: int, arithmetic: Arithmetic = "exact"
    ) -> None:
        self.name = name
        self._device = device
        try:
            self._session = _open(model, device, threads, arithmetic)
        except Exception as error:
            raise _named(error, name, "cannot be loaded") from error
        if device == "cuda" and "CUDAExecutionProvider" not in self._session.get_providers():
            raise DeviceError(f"{name}: the session did not get CUDA; use --device cpu")
        self.inputs = tuple(_port(argument) for argument in self._session.get_inputs())
        self.outputs = tuple(_port(argument) for argument in self._session.get_outputs())

    def __call__(self, *values: Value, to_host: Collection[int] = ()) -> list[Value]:
        """Run. Outputs whose index is in `to_host` come back in main memory."""
        binding = self._session.io_binding()
        for port, value in zip(self.inputs, values, strict=True):
            binding.bind_ortvalue_input(port.name, value)
        for index, port in enumerate(self.outputs):
            binding.bind_output(port.name, "cpu" if index in to_host else self._device)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise _named(error, self.name, "failed while running") from error
        return list(binding.get_outputs())


def _open(model: bytes, device: Device, threads: int, arithmetic: Arithmetic) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = threads
    # Waiting threads of one network must not burn the processor while the next network works.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    # A memory pattern reserves one block per session on top of the shared arena.
    options.enable_mem_pattern = False
    providers: Sequence[Any] = ["CPUExecutionProvider"]
    if device == "cuda":
        providers = [("CUDAExecutionProvider", cuda_options(arithmetic)), *providers]
    return onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)


def cuda_options(arithmetic: Arithmetic) -> dict[str, str]:
    """How ONNX Runtime's CUDA provider is to run a session.

    Every session sees one batch size, so that each convolution's algorithm is chosen once. cuDNN's heuristic
    chooses it from a table; the exhaustive search, ONNX Runtime's default, would time all of them at every
    start. Workspace is left unlimited: faster algorithms for 16-bit need more than the 32 MB it is otherwise
    held to. Tensor cores want channels last, and without `prefer_nhwc` each convolution turns its input there
    and its output back.
    """
    return {
        "device_id": "0",
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "cudnn_conv_use_max_workspace": "1",
        "prefer_nhwc": str(int(arithmetic == "float16")),
        "use_tf32": str(int(arithmetic != "exact")),
    }


@functools.cache
def _share_memory(device: Device) -> None:
    """Let all sessions take their memory from one arena, which is as large as the largest of them needs.

    With an arena each, five cell networks keep five times the memory of one.
    """
    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    as_requested = onnxruntime.OrtArenaCfg({"arena_extend_strategy": 1})
    # Without the shared arena everything works, with more memory.
    with contextlib.suppress(Exception):
        memory = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
        onnxruntime.create_and_register_allocator(memory, as_requested)
    if device == "cuda":
        with contextlib.suppress(Exception):
            memory = onnxruntime.OrtMemoryInfo("Cuda", kind, 0, onnxruntime.OrtMemType.DEFAULT)
            onnxruntime.create_and_register_allocator_v2(
                "CUDAExecutionProvider", memory, {"device_id": "0"}, as_requested
            )


@functools.cache
def cuda_fault() -> str | None:
    """Why CUDA cannot be used, found by running a small graph on it; None where it can."""
    if not _built_for_cuda():
        return "this ONNX Runtime was built without CUDA (install onnxruntime-gpu instead of onnxruntime)"
    if hasattr(onnxruntime, "preload_dlls"):
        # Finds the CUDA and cuDNN libraries of the Python wheels; it prints what it does not find.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
            onnxruntime.preload_dlls()
    graph = Graph()
    doubled = graph.node("Add", graph.input("x", np.float32, (1,)), "x")
    try:
        session = _open(graph.model(doubled), "cuda", 1, "exact")
        if "CUDAExecutionProvider" not in session.get_providers():
            return "ONNX Runtime could not start it (no driver, no device, or CUDA libraries missing)"
        session.run(None, {"x": np.ones(1, np.float32)})
    except Exception as error:
        # CUDA's own sentence, without ONNX Runtime's account of where in its sources it was met.
        sentence = re.search(r"CUDA failure \d+: ([^;]+?) *;", str(error))
        return sentence[1] if sentence else _first_line(error)
    return None


def _built_for_cuda() -> bool:
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _port(argument: Any) -> Port:
    shape = tuple(length if isinstance(length, int) else None for length in argument.shape)
    return Port(argument.name, argument.type, shape)


def _named(error: Exception, name: str, what: str) -> SoftCTMError:
    message = str(error).lower()
    if isinstance(error, MemoryError) or re.search("out of memory|alloc(at|_failed)", message):
        return OutOfDeviceMemoryError(f"{name} {what}: out of memory; free some, or take fewer networks")
    return ModelError(f"{name} {what}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
