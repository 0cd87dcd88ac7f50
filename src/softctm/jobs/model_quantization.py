"""int8 networks for a whole model: every network calibrated on real pairs, compared, and described."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime

from softctm.datasets.patient_folds import read_folds
from softctm.errors import InputError, ModelError, UsageError
from softctm.inference.ensemble import Ensemble
from softctm.inference.pair_inputs import PairInputs
from softctm.inference.tta import first_views
from softctm.model import Model
from softctm.model.manifest import Manifest, NetworkEntry, NetworkFile
from softctm.model.network_file import MANIFEST, Network
from softctm.ort.quantization import Image, quantize_network
from softctm.ort.runtime import Runtime
from softctm.pair import CellTissuePair
from softctm.progress import SILENT, Progress
from softctm.readers.source import PairSource
from softctm.storage.files import prepare_folder, replacing_files, write_bytes_atomically

_FOLDER = "int8"

MAX_MEAN_DIFFERENCE = 0.02
"""Largest mean difference in probability between a network and its 8-bit version that is accepted."""


@dataclass(frozen=True)
class Difference:
    """How an 8-bit network's probabilities differ from those of the network that it was made from."""

    mean: float
    largest: float
    same_class: float
    """Share of pixels whose most probable class is the same."""


class NetworkInputs:
    """What a model's networks are given for a pair, as arrays, the cell networks' context included.

    Parameters
    ----------
    model : Model
        Its tissue networks give the cell networks their context.
    """

    def __init__(self, model: Model) -> None:
        runtime = Runtime("cpu")
        self._tissue = Ensemble(runtime, model.tissue, first_views(1))
        self._head, self._sees_tissue = model.tissue.head.name, bool(model.cells.context)
        self._inputs = PairInputs(runtime)

    def of(self, stage: str, pair: CellTissuePair) -> Image:
        """(1, channels, 1024, 1024) float32 for a stage, "tissue" or "cells"."""
        if stage == "tissue":
            return np.asarray(self._inputs.image(pair.tissue).numpy())
        if not self._sees_tissue:
            return np.asarray(self._inputs.image(pair.cell).numpy())
        probabilities = self._tissue(self._inputs.image(pair.tissue))[self._head]
        window = pair.window
        return np.asarray(self._inputs.with_context(pair.cell, probabilities, window.x, window.y).numpy())


def quantize_model(
    model: Model, source: PairSource, count: int, *, overwrite: bool = False, progress: Progress = SILENT
) -> dict[str, Difference]:
    """Add int8 networks to a model, those for validation included, and name them in its manifest.

    Parameters
    ----------
    model : Model
        Its folder gets `int8/` with a file for each 32-bit one.
    source : PairSource
        Pairs to calibrate on: their largest and smallest values fix what the 8-bit integers stand for. No
        network is shown pairs of the fold that was held out, so that its score out of fold stays one.
    count : int
        Pairs for each network, spread evenly over those that it may use.
    overwrite : bool
        Whether int8 networks that are there already are replaced.
    progress : Progress
        Gets a step a network.

    Returns
    -------
    dict
        File name → how far its probabilities are off, on the first of the pairs.

    Raises
    ------
    ModelError
        If the model has no manifest, or a network cannot be quantized, or loses too much by it.
    UsageError
        If the model has int8 networks already, unless `overwrite`.
    InputError
        If no pair is left to calibrate a network on.
    PairError
        If a pair cannot be read.
    """
    if not (model.folder / MANIFEST).is_file():
        raise ModelError(f"{model.folder}: has no {MANIFEST}, which says what its networks give; write one")
    if "int8" in model.precisions and not overwrite:
        raise UsageError(f"{model.folder}: has int8 networks already; --overwrite makes them anew")
    if lacking := [name for name, entry in _entries(model.manifest) if "float32" not in entry.files]:
        raise ModelError(f"{model.folder}: the stage {lacking[0]} has networks without float32 to start from")
    own = model.folder / _FOLDER
    for folder in (model.folder, *([own] if own.exists() else [])):  # better now than after the computation
        prepare_folder(folder)
    inputs = NetworkInputs(model)
    fold_of = read_folds(model.folder / model.manifest.folds).of_pair if model.manifest.folds else {}
    differences: dict[str, Difference] = {}
    shown: dict[str, list[str]] = {}
    made: dict[str, NetworkFile] = {}
    contents: dict[str, bytes] = {}
    work = [
        (stage, network)
        for stage in model.stages.values()
        for network in (*stage.networks, *stage.validation)
    ]
    for stage, network in progress.over(work, "network"):
        numbers = _chosen(source, fold_of, network, count)
        original = network.read()
        content = quantize_network(
            original,
            (inputs.of(stage.name, source.read(number)) for number in numbers),
            network.path.name,
        )
        first = inputs.of(stage.name, source.read(numbers[0]))
        difference = _difference(original, content, first, stage.head.activation)
        if not difference.mean <= MAX_MEAN_DIFFERENCE:
            raise ModelError(
                f"{network.path}: 8 bits change its probabilities by {difference.mean:.2g} on average; "
                "calibrate on more pairs, or keep it as it is"
            )
        place = f"{_FOLDER}/{network.path.relative_to(model.folder).as_posix()}"
        contents[place] = content
        made[network.sha256] = NetworkFile(path=place, sha256=hashlib.sha256(content).hexdigest())
        differences[place] = difference
        shown[place] = [source.names[number] for number in numbers]
    with replacing_files(model.folder, MANIFEST) as folder:
        for place, content in contents.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomically(folder / place, content)
        _with_int8(model.manifest, made, shown).write(folder)
    return differences


def _entries(manifest: Manifest) -> list[tuple[str, NetworkEntry]]:
    """Every network with its stage's name."""
    return [
        (name, entry)
        for name, stage in manifest.stages.items()
        for entry in (*stage.networks, *stage.validation)
    ]


def _with_int8(
    manifest: Manifest, made: Mapping[str, NetworkFile], shown: Mapping[str, list[str]]
) -> Manifest:
    """The manifest that names the new files; scores of older ones are dropped."""

    def extended(entries: Sequence[NetworkEntry]) -> tuple[NetworkEntry, ...]:
        return tuple(
            entry.model_copy(update={"files": {**entry.files, "int8": made[entry.files["float32"].sha256]}})
            for entry in entries
        )

    stages = {
        name: stage.model_copy(
            update={"networks": extended(stage.networks), "validation": extended(stage.validation)}
        )
        for name, stage in manifest.stages.items()
    }
    scores = {precision: score for precision, score in manifest.scores.items() if precision != "int8"}
    return manifest.model_copy(
        update={"stages": stages, "scores": scores, "quantization": {"pairs": dict(shown)}}
    )


def _chosen(source: PairSource, fold_of: Mapping[str, int], network: Network, count: int) -> list[int]:
    """Numbers of the pairs to calibrate a network on."""
    allowed = [
        number
        for number, name in enumerate(source.names)
        if network.fold is None or fold_of.get(name) != network.fold
    ]
    if not allowed:
        raise InputError(
            f"{network.path.name}: every pair is of the fold that was held out for it; give others"
        )
    step = max(1.0, len(allowed) / count)
    return [allowed[int(place * step)] for place in range(min(count, len(allowed)))]


def _difference(original: bytes, content: bytes, image: Image, activation: str) -> Difference:
    before, after = (_probabilities(network, image, activation) for network in (original, content))
    off = np.abs(after - before)
    same = np.mean(before.argmax(1) == after.argmax(1))
    return Difference(float(off.mean()), float(off.max()), float(same))


def _probabilities(network: bytes, image: Image, activation: str) -> Image:
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    (port,) = session.get_inputs()
    batch, channels = (length if isinstance(length, int) else None for length in port.shape[:2])
    feed = np.repeat(image[:, :channels], batch or 1, axis=0)
    (values,) = session.run(None, {port.name: feed})
    if activation == "logits":
        powers = np.exp(values - values.max(1, keepdims=True))
        values = powers / powers.sum(1, keepdims=True)
    return np.asarray(values, np.float32)
