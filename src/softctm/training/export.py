"""From trained networks to a model folder: ONNX files, checked against PyTorch, and their manifest."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from softctm import __version__
from softctm.errors import ModelError
from softctm.files import write_json_atomically
from softctm.model.loading import CELL_CLASSES
from softctm.networks import DeepLab, ServedNetwork
from softctm.networks.fuse_batch_norm import melted
from softctm.pair import CELL_MPP, PATCH_SIZE, TISSUE_MPP
from softctm.training.cross_validation import EnsembleRun
from softctm.training.specs import TISSUE_CLASSES

MAX_DIFFERENCE = 5e-3
"""Largest difference in probability between PyTorch and the exported file that is accepted."""


def export_network(network: DeepLab, path: Path) -> float:
    """Write one network as ONNX: dynamic batch, 16-bit weights, 32-bit arithmetic, logits out.

    Returns
    -------
    float
        Largest difference in probability between PyTorch (32-bit weights) and ONNX Runtime on a random
        image, at most `MAX_DIFFERENCE`.

    Raises
    ------
    ModelError
        If the difference is larger.
    """
    served = ServedNetwork(melted(network.cpu())).eval()
    channels = 3 + network.spec.context_channels
    example = torch.rand(2, channels, PATCH_SIZE, PATCH_SIZE, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            served,
            (example,),
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1024)},),
        )
    assert program is not None
    model = store_as_float16(program.model_proto)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return _difference(ServedNetwork(network.eval()), path, example[:1])


def store_as_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Keep convolution weights as float16, each cast back to float32 where it is used; halves the file.

    ONNX Runtime folds the casts away when it loads the file, so that arithmetic and speed stay the same.
    """
    graph = model.graph
    weights = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    for tensor in graph.initializer:
        if tensor.name not in weights or tensor.data_type != TensorProto.FLOAT:
            continue
        name = tensor.name
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}_float16")
        tensor.CopyFrom(half)
        graph.node.insert(0, helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT))
    return model


def _difference(served: ServedNetwork, path: Path, example: torch.Tensor) -> float:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: example.numpy()})
    with torch.inference_mode():
        expected = served(example).softmax(1)
    difference = float((torch.from_numpy(logits).softmax(1) - expected).abs().max())
    if not difference <= MAX_DIFFERENCE:
        raise ModelError(
            f"{path}: differs from PyTorch by {difference:.2g} in probability, more than {MAX_DIFFERENCE}"
        )
    return difference


def export_ensemble(
    ensemble: EnsembleRun, folder: Path, name: str, facts: Mapping[str, Any]
) -> dict[str, float]:
    """Write every network of a run and `model.json`.

    The detector's model is the tissue network of fold 0 and the cell networks of all folds; the other tissue
    networks, which only out-of-fold validation needs, go to `validation/` with the folds.

    Parameters
    ----------
    ensemble : EnsembleRun
        A finished run.
    folder : Path
        The model folder; its files are replaced.
    name : str
        The model's name.
    facts : mapping
        What the manifest's `training` says beyond the recipe: data, license, command.

    Returns
    -------
    dict
        File name → largest difference from PyTorch in probability.
    """
    folds = sorted(set(ensemble.fold_of()))
    differences = {}
    entries: dict[str, list[dict[str, Any]]] = {"tissue": [], "cell": [], "validation": []}
    for fold in folds:
        tissue_file = f"tissue_fold{fold}.onnx" if fold == folds[0] else f"validation/tissue_fold{fold}.onnx"
        places = [("tissue" if fold == folds[0] else "validation", tissue_file, ensemble.tissue_network)]
        places.append(("cell", f"cell_fold{fold}.onnx", ensemble.cell_network))
        for group, file, load in places:
            differences[file] = export_network(load(fold), folder / file)
            print(
                f"{file}: largest difference from PyTorch {differences[file]:.2g} in probability", flush=True
            )
            entries[group].append({"file": file, "sha256": _sha256(folder / file), "fold": fold})
    (folder / "validation").mkdir(exist_ok=True)
    (folder / "validation" / "folds.json").write_bytes(ensemble.folds_path.read_bytes())
    document = {
        "schema_version": 1,
        "name": name,
        "version": __version__,
        "description": f"DeepLabV3+ with {ensemble.preset.cells.network.encoder}, {len(folds)} cell networks",
        "license": facts["license"],
        "tissue": _networks(entries["tissue"], TISSUE_MPP, TISSUE_CLASSES),
        "cell": _networks(entries["cell"], CELL_MPP, CELL_CLASSES),
        "precision": "float16 weights, float32 arithmetic",
        "training": {
            **facts,
            "pairs": len(ensemble.pairs),
            "patients": len({pair.patient for pair in ensemble.pairs}),
            "commit": ensemble.commit(),
            "preset": asdict(ensemble.preset),
            "seed": ensemble.loop.seed,
            "largest_difference_from_pytorch": max(differences.values()),
        },
        "validation": {"folds": "validation/folds.json", "tissue": entries["validation"]},
    }
    write_json_atomically(folder / "model.json", document, indent=1)
    return differences


def _networks(entries: list[dict[str, Any]], mpp: float, classes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "networks": entries,
        "input_size": PATCH_SIZE,
        "mpp": mpp,
        "classes": list(classes),
        "output": "logits",
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
