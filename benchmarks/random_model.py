"""A model of random networks, to time sizes that no model at hand has."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from softctm.model.manifest import (
    RGB,
    Head,
    Manifest,
    NetworkEntry,
    NetworkFile,
    StageEntry,
    StageInput,
)
from softctm.model.tasks import CELL_CLASSES, TISSUE_CLASSES
from softctm.pair import CELL_MPP, PATCH_SIZE, TISSUE_MPP

SIZES = {"resnet18": 4, "resnet50": 5}
"""Encoder and its depth: ResNet18 ends at layer3; ResNet50 is the paper's."""


def write_random_model(folder: Path, encoder: str) -> Path:
    """Write DeepLabV3+ networks with random weights: one for tissue, one, five times, for cells.

    They work at the patch's full resolution with output stride 16, as the paper's do. Batch normalization is
    set on noise, so that activations are as large as a trained network's; logits are kept small, since random
    networks magnify what storing weights in 16 bits rounds off.
    """
    import torch  # from here on the `train` extra is needed

    from softctm.networks.deeplab import DeepLab
    from softctm.networks.network_config import NetworkConfig
    from softctm.training.model_export import export_network

    torch.manual_seed(0)
    stages: dict[str, StageEntry] = {}
    context = tuple(f"tissue.{label}" for label in TISSUE_CLASSES)
    for stage, count, channels, classes, mpp in (
        ("tissue", 1, RGB, TISSUE_CLASSES, TISSUE_MPP),
        ("cells", 5, (*RGB, *context), CELL_CLASSES, CELL_MPP),
    ):
        print(f"exporting a random {encoder} for {stage}", file=sys.stderr, flush=True)
        config = NetworkConfig(
            encoder, SIZES[encoder], 256, 1, context_channels=len(channels) - 3, classes=len(classes)
        )
        network = DeepLab(config)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.inference_mode():
            noise = torch.rand(4, len(channels), 256, 256)  # as the export's check against PyTorch has it
            network.train()(noise)
            last = network.body.segmentation_head[0]
            deviation = network.eval()(noise).std()
            last.weight.mul_(0.005 / deviation)
        export_network(network, folder / f"{stage}.onnx")
        content = (folder / f"{stage}.onnx").read_bytes()
        (folder / f"{stage}.onnx").unlink()
        networks = []
        for fold in range(count):
            file = f"{stage}_fold{fold}.onnx"
            (folder / file).write_bytes(content)
            stored = NetworkFile(path=file, sha256=hashlib.sha256(content).hexdigest())
            networks.append(NetworkEntry(fold=fold, files={"float32": stored}))
        stages[stage] = StageEntry(
            input=StageInput(size=PATCH_SIZE, mpp=mpp, channels=channels),
            heads=(Head(name=stage, classes=classes, activation="logits"),),
            networks=tuple(networks),
        )
    manifest = Manifest(
        task="cell-points", name=f"random {encoder}", stages=stages, postprocessing={"method": "peaks"}
    )
    manifest.write(folder)
    return folder
