"""The hand-set networks: the committed files are what the script writes, and they find the drawn cells."""

from __future__ import annotations

import re
from pathlib import Path

import hand_set_networks
import numpy as np
import onnx
import onnxruntime
import pytest
from scipy.spatial import cKDTree
from skimage.feature import peak_local_max

from softctm.phantom import draw_pair


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hand_set")
    hand_set_networks.write(folder)
    return folder


def test_committed_networks_are_what_the_script_writes(written: Path) -> None:
    names = sorted(path.name for path in written.iterdir())
    assert names == sorted(path.name for path in hand_set_networks.FOLDER.iterdir())
    for name in names:
        if name.endswith(".onnx"):
            # Serialization may differ between versions of onnx; the graph may not.
            ours, committed = (onnx.load(folder / name) for folder in (written, hand_set_networks.FOLDER))
            assert [n.op_type for n in ours.graph.node] == [n.op_type for n in committed.graph.node]
            for pair in zip(ours.graph.initializer, committed.graph.initializer, strict=True):
                np.testing.assert_allclose(*map(onnx.numpy_helper.to_array, pair), atol=1e-6)
    # The manifest but for the hashes, which follow the serialization.
    ours, committed = (
        re.sub('"sha256": "[0-9a-f]{64}"', "", (folder / "model.json").read_text())
        for folder in (written, hand_set_networks.FOLDER)
    )
    assert ours == committed


def test_they_are_a_few_kilobytes_together(written: Path) -> None:
    assert sum(path.stat().st_size for path in written.iterdir()) < 50_000


def test_probabilities_sum_to_one_and_cells_are_found(written: Path) -> None:
    """Run directly, with the true tissue as context: hits within 15 px, class and all."""
    pair, truth = draw_pair(11)
    under = truth.tissue[pair.window.y : pair.window.y + 256, pair.window.x : pair.window.x + 256]
    cancer = np.repeat(np.repeat(under == 2, 4, axis=0), 4, axis=1).astype(np.float32)
    rgb = pair.cell.astype(np.float32).transpose(2, 0, 1) / 255
    values = np.concatenate([rgb, [1 - cancer, cancer]])[None]
    session = onnxruntime.InferenceSession(written / "cell_fold2.onnx", providers=["CPUExecutionProvider"])
    probabilities = session.run(None, {"input": values})[0][0]
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)

    rows, columns = peak_local_max(
        1 - probabilities[0], min_distance=3, threshold_abs=0.67, exclude_border=False
    ).T
    label = 1 + probabilities[1:, rows, columns].argmax(axis=0)
    for cell_class in (1, 2):
        true = truth.cells.label == cell_class
        found = cKDTree(np.stack([columns, rows], axis=1)[label == cell_class])
        distance, _ = found.query(np.stack([truth.cells.x, truth.cells.y], axis=1)[true])
        assert (distance <= 15).mean() > 0.5
        assert found.n < 2 * true.sum()


def test_tissue_network_tells_cancer_from_stroma(written: Path) -> None:
    pair, truth = draw_pair(11)
    session = onnxruntime.InferenceSession(written / "tissue.onnx", providers=["CPUExecutionProvider"])
    logits = session.run(None, {"input": pair.tissue.astype(np.float32).transpose(2, 0, 1)[None] / 255})[0][0]
    assert logits.shape == (2, 1024, 1024)
    known = truth.tissue != 255
    assert ((logits[1] > logits[0]) == (truth.tissue == 2))[known].mean() > 0.7
