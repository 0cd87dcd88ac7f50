"""A model of random networks, to time sizes that no model at hand has."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from softctm.model.loading import CELL_CLASSES

SIZES = {"resnet18": 4, "resnet50": 5}
"""Encoder and its depth: ResNet18 ends at layer3; ResNet50 is the paper's."""


def write_random_model(folder: Path, encoder: str) -> Path:
    """Write DeepLabV3+ networks with random weights: one for tissue, one, five times, for cells.

    They work at the patch's full resolution with output stride 16, as the paper's do. Batch normalization is
    set on noise, so that activations are as large as a trained network's; logits are kept small, since random
    networks magnify what storing weights in 16 bits rounds off.
    """
    import torch  # from here on the `train` extra is needed

    from softctm.networks.deeplab import DeepLab, NetworkSpec
    from softctm.training.export import export_network

    torch.manual_seed(0)
    manifest: dict[str, Any] = {"schema_version": 1, "name": f"random {encoder}"}
    stages = (("tissue", 1, 0, ["background", "cancer"], 0.8), ("cell", 5, 2, list(CELL_CLASSES), 0.2))
    for stage, count, context, classes, mpp in stages:
        print(f"exporting a random {encoder} for {stage}", file=sys.stderr, flush=True)
        network = DeepLab(NetworkSpec(encoder, SIZES[encoder], 256, context, len(classes), 1))
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.inference_mode():
            noise = torch.rand(4, 3 + context, 256, 256)  # as the export's check against PyTorch has it
            network.train()(noise)
            last = network.body.segmentation_head[0]
            deviation = network.eval()(noise).std()
            last.weight.mul_(0.005 / deviation)
        export_network(network, folder / f"{stage}.onnx")
        content = (folder / f"{stage}.onnx").read_bytes()
        (folder / f"{stage}.onnx").unlink()
        networks = []
        for fold in range(count):
            (folder / f"{stage}_fold{fold}.onnx").write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            networks.append({"file": f"{stage}_fold{fold}.onnx", "sha256": digest})
        manifest[stage] = {"networks": networks, "input_size": 1024, "mpp": mpp}
        manifest[stage] |= {"classes": classes, "output": "logits"}
    (folder / "model.json").write_text(json.dumps(manifest))
    return folder
