"""8-bit version of a whole model: every network calibrated on real pairs, compared, and described."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from softctm.datasets.folds import read_folds
from softctm.errors import InputError, ModelError, UsageError
from softctm.files import write_bytes_atomically, write_json_atomically
from softctm.inference.ensemble import Ensemble
from softctm.inference.pair_inputs import PairInputs
from softctm.inference.tta import first_views
from softctm.model.loading import Model, Stage
from softctm.model.network_file import MANIFEST, Network
from softctm.ort.quantization import Image, quantize_network
from softctm.ort.runtime import Runtime
from softctm.pair import CellTissuePair
from softctm.readers.source import PairSource

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
    """`PairInputs` of a model as arrays, the cell networks' context included.

    Parameters
    ----------
    model : Model
        Its tissue networks give the cell networks their context.
    """

    def __init__(self, model: Model) -> None:
        runtime = Runtime("cpu")
        self._tissue = Ensemble(runtime, model.tissue, first_views(1))
        self._inputs = PairInputs(runtime)

    def tissue(self, pair: CellTissuePair) -> Image:
        """(1, 3, 1024, 1024): RGB of the tissue patch in [0, 1]."""
        return np.asarray(self._inputs.tissue(pair).numpy())

    def cell(self, pair: CellTissuePair) -> Image:
        """(1, 3 + tissue classes, 1024, 1024): RGB of the cell patch, then its tissue probabilities."""
        probabilities = self._tissue(self._inputs.tissue(pair))
        return np.asarray(self._inputs.cell(pair, probabilities).numpy())


def quantize_model(model: Model, source: PairSource, folder: Path, count: int) -> dict[str, Difference]:
    """Write an 8-bit version of a model, networks for validation included, that does everything it does.

    Parameters
    ----------
    model : Model
    source : PairSource
        Pairs to calibrate on: their largest and smallest values fix what the 8-bit integers stand for. No
        network is shown pairs of the fold that it was kept from, so that its score out of fold stays one.
    folder : Path
        The model folder to write.
    count : int
        Pairs for each network, spread evenly over those that it may use.

    Returns
    -------
    dict
        File name → how far its probabilities are off, on the first of the pairs.

    Raises
    ------
    ModelError
        If the model has no manifest, or a network cannot be put into 8 bits, or loses too much by it.
    UsageError
        If the folder is the model's own.
    InputError
        If no pair is left to calibrate a network on.
    PairError
        If a pair cannot be read.
    """
    if not model.manifest:
        raise ModelError(f"{model.folder}: has no {MANIFEST}, which says what its networks give; write one")
    if folder.resolve() == model.folder.resolve():
        raise UsageError(f"{folder}: is the model itself; name another folder with --output")
    inputs = NetworkInputs(model)
    document = json.loads(json.dumps(model.manifest))
    validation = document.get("validation", {})
    fold_of = read_folds(model.folder / validation["folds"]).of_pair if "folds" in validation else {}
    work: list[tuple[Stage, Network, dict[str, Any]]] = []
    for stage, section, further, entries in (
        (model.tissue, document["tissue"], model.validation_tissue, validation.get("tissue", [])),
        (model.cell, document["cell"], model.validation_cell, validation.get("cell", [])),
    ):
        networks = (*stage.networks, *further)
        work += [(stage, *both) for both in zip(networks, [*section["networks"], *entries], strict=True)]
    differences: dict[str, Difference] = {}
    shown: dict[str, list[str]] = {}
    sources: dict[str, str] = {}
    for stage, network, entry in work:
        numbers = _chosen(source, fold_of, network, count)
        shown[entry["file"]] = [source.names[number] for number in numbers]
        look = inputs.tissue if stage is model.tissue else inputs.cell
        original = network.read()
        content = quantize_network(
            original, (look(source.read(number)) for number in numbers), network.path.name
        )
        difference = _difference(original, content, look(source.read(numbers[0])), stage.output)
        if not difference.mean <= MAX_MEAN_DIFFERENCE:
            raise ModelError(
                f"{network.path}: 8 bits change its probabilities by {difference.mean:.2g} on average; "
                "calibrate on more pairs, or keep it as it is"
            )
        differences[entry["file"]] = difference
        path = folder / entry["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomically(path, content)
        sources[entry["file"]] = network.sha256
        entry["sha256"] = hashlib.sha256(content).hexdigest()
    if "folds" in validation:
        place = folder / validation["folds"]
        place.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomically(place, (model.folder / validation["folds"]).read_bytes())
    # Scores are of the networks that they were measured with.
    document.pop("scores", None)
    document["name"] = f"{model.name}-8bit"
    document["precision"] = "8-bit weights and activations in convolutions, 32-bit elsewhere"
    document["quantization"] = {"made_from": sources, "pairs": shown}
    write_json_atomically(folder / MANIFEST, document, indent=1)
    return differences


def _chosen(source: PairSource, fold_of: Mapping[str, int], network: Network, count: int) -> list[int]:
    """Numbers of the pairs to calibrate a network on."""
    allowed = [
        number
        for number, name in enumerate(source.names)
        if network.fold is None or fold_of.get(name) != network.fold
    ]
    if not allowed:
        raise InputError(f"{network.path.name}: every pair is of the fold that it was kept from; give others")
    step = max(1.0, len(allowed) / count)
    return [allowed[int(place * step)] for place in range(min(count, len(allowed)))]


def _difference(original: bytes, content: bytes, image: Image, output: str) -> Difference:
    before, after = (_probabilities(network, image, output) for network in (original, content))
    off = np.abs(after - before)
    same = np.mean(before.argmax(1) == after.argmax(1))
    return Difference(float(off.mean()), float(off.max()), float(same))


def _probabilities(network: bytes, image: Image, output: str) -> Image:
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    (port,) = session.get_inputs()
    batch, channels = (length if isinstance(length, int) else None for length in port.shape[:2])
    feed = np.repeat(image[:, :channels], batch or 1, axis=0)
    (values,) = session.run(None, {port.name: feed})
    if output == "logits":
        powers = np.exp(values - values.max(1, keepdims=True))
        values = powers / powers.sum(1, keepdims=True)
    return np.asarray(values, np.float32)
