"""One ONNX file of a model: read, its hash verified, parsed once, known to be whole."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from softctm.errors import ModelError

MANIFEST = "model.json"


@dataclass(frozen=True)
class Network:
    """One ONNX file.

    Attributes
    ----------
    path : Path
    sha256 : str
        Lower-case hexadecimal digest that the file must have.
    fold : int or None
        The fold that was held out when the network was trained.
    """

    path: Path
    sha256: str
    fold: int | None = None

    def read(self) -> bytes:
        """The file's bytes, once their hash is verified.

        Raises
        ------
        ModelError
            If the file cannot be read, or is altered.
        """
        content = read_file(self.path)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ModelError(
                f"{self.path}: SHA-256 differs from the one in {MANIFEST}; the file is altered or "
                "incomplete, fetch it again"
            )
        return content

    def parse(self) -> onnx.ModelProto:
        """The network, once its file is verified and known to need no other file.

        Raises
        ------
        ModelError
            As `read`, or if the file is no ONNX network, or keeps its weights elsewhere.
        """
        content = self.read()
        damaged = ModelError(f"{self.path}: not an ONNX network, or a damaged one; fetch it again")
        try:
            model = onnx.load_model_from_string(content)
        except (DecodeError, ValueError) as error:
            raise damaged from error
        if not model.graph.node:
            raise damaged
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model)):
            raise ModelError(
                f"{self.path}: keeps weights in another file, which is refused; "
                "save it with its weights inside"
            )
        return model


def read_file(path: Path) -> bytes:
    """A file's bytes; ModelError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _tensors(message: Message) -> list[onnx.TensorProto]:
    """Every tensor in an ONNX message, at any depth: initializers, constants, bodies of loops, functions."""
    if isinstance(message, onnx.TensorProto):
        return [message]
    found = []
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for part in value if hasattr(value, "__len__") else [value]:
                found += _tensors(part)
    return found
