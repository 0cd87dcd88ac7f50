"""A network whose nuclei are drawn by color, so that the answer is known; its model folder, and drawings."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tiny_networks import with_named_outputs

from softctm.ort.graphs import Graph

SIZE = 256
RADIUS = 9
TYPES = ["background", "neoplastic", "odd"]
STRIDE = 16
TOKENS = 5
"""Numbers of a token: mean red, green and blue of its square, then its column and row in the field."""


def by_color() -> bytes:
    """Nucleus where blue is below a half, odd above a quarter; H is 2 red − 1, V 2 green − 1; tokens."""
    graph = Graph()
    image = graph.input("image", np.float32, ("n", 3, SIZE, SIZE))

    def head(weights: list[tuple[float, float, float]], biases: list[float]) -> str:
        kernel = graph.constant(np.array(weights, np.float32).reshape(-1, 3, 1, 1))
        return graph.node("Conv", image, kernel, graph.constant(np.array(biases, np.float32)))

    outputs = {
        "hv_map": head([(2, 0, 0), (0, 2, 0)], [-1, -1]),
        "tissue_types": head([(1, 1, 1)], [0]),  # of no interest to the manifest
        "nuclei_binary_map": head([(0, 0, 40), (0, 0, -40)], [-20, 20]),
        "nuclei_type_map": head([(0, 0, 40), (0, 0, -40), (0, 0, 40)], [-40, 0, -20]),
    }
    mean = graph.node("AveragePool", image, kernel_shape=[STRIDE] * 2, strides=[STRIDE] * 2)
    place = np.stack(np.meshgrid(*[np.arange(SIZE // STRIDE, dtype=np.float32)] * 2))[None]
    # With a kernel of zeros, so that there are as many places as images in a batch.
    zeros = graph.constant(np.zeros((2, 3, 1, 1), np.float32))
    places = graph.node("Add", graph.node("Conv", mean, zeros), graph.constant(place))
    outputs["tokens"] = graph.node("Concat", mean, places, axis=1)
    return with_named_outputs(graph, outputs)


def heads(**activations: str) -> list[dict[str, Any]]:
    classes = {
        "nuclei_binary_map": ["background", "nucleus"],
        "hv_map": ["horizontal", "vertical"],
        "nuclei_type_map": TYPES,
    }
    kinds = {"nuclei_binary_map": "logits", "hv_map": "none", "nuclei_type_map": "logits"} | activations
    return [{"name": name, "classes": classes[name], "activation": kinds[name]} for name in classes]


def token_head(**changes: Any) -> dict[str, Any]:
    return {"name": "tokens", "width": TOKENS, "stride": STRIDE, "activation": "none"} | changes


def write_model(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    content = by_color()
    (folder / "net.onnx").write_bytes(content)
    stage = {
        "input": {"size": SIZE, "mpp": 0.25, "channels": ["red", "green", "blue"]},
        "heads": heads(),
        "networks": [
            {"files": {"float32": {"path": "net.onnx", "sha256": hashlib.sha256(content).hexdigest()}}}
        ],
    }
    manifest = {
        "schema_version": 2,
        "task": "nuclei",
        "name": "by-color",
        "stages": {"nuclei": stage | changes.pop("stage", {})},
        "postprocessing": {"method": "hover", "magnification": 40},
        **changes,
    }
    (folder / "model.json").write_text(json.dumps(manifest))
    return folder


def drawn(height: int, width: int, centers: list[tuple[float, float]], radius: float = RADIUS) -> Any:
    """An image with disks at (x, y), pixel centers at + 0.5; every second one is odd."""
    image = np.full((height, width, 3), (128, 128, 230), np.uint8)
    rows, columns = np.mgrid[:height, :width] + 0.5
    for number, (x, y) in enumerate(centers):
        inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        h, v = (columns - x) / radius, (rows - y) / radius
        blue = np.full(h.shape, 90.0 if number % 2 else 20.0)
        image[inside] = np.stack([127.5 * (h + 1), 127.5 * (v + 1), blue], -1)[inside].round()
    return image


def save(image: NDArray[np.uint8], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path
