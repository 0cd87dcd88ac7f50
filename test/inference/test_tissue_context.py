"""Crop and upsampling against PyTorch's and ONNX's own interpolation and a cubic polynomial."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from softctm.inference.tissue_context import context_graph, image_graph, upsampling_matrix


def context(cell: NDArray[np.uint8], tissue: NDArray[np.float32], x: int, y: int) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(context_graph(), providers=["CPUExecutionProvider"])
    corner = {"x": np.array([x]), "y": np.array([y])}
    return session.run(None, {"cell": cell, "tissue": tissue, **corner})[0]


@pytest.fixture(scope="module")
def cell() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)


@pytest.mark.parametrize(("x", "y", "classes"), [(0, 0, 2), (768, 768, 3), (131, 402, 3)])
def test_window_is_upsampled_as_pytorch_does(cell: NDArray[np.uint8], x: int, y: int, classes: int) -> None:
    torch = pytest.importorskip("torch")
    tissue = np.random.default_rng(1).random((1, classes, 1024, 1024), np.float32)
    result = context(cell, tissue, x, y)
    window = torch.from_numpy(tissue[:, :, y : y + 256, x : x + 256].copy())
    expected = torch.nn.functional.interpolate(window, scale_factor=4, mode="bicubic", align_corners=False)
    assert result.shape == (1, 3 + classes, 1024, 1024)
    np.testing.assert_allclose(result[:, 3:], expected.numpy(), atol=2e-6)
    np.testing.assert_allclose(result[0, :3], cell.transpose(2, 0, 1) / 255, atol=1e-7)


def test_overshoots_beside_an_edge_as_cubic_interpolation_does(cell: NDArray[np.uint8]) -> None:
    tissue = np.zeros((1, 2, 1024, 1024), np.float32)
    tissue[:, 1, :, 512:] = 1
    result = context(cell, tissue, 384, 384)[0, 4]
    assert result.max() > 1.05
    assert result.min() < -0.05
    assert np.ptp(result, axis=0).max() < 1e-6


@pytest.mark.parametrize("pooling", [2, 4])
def test_pooled_inputs_are_the_averages_of_whole_ones(cell: NDArray[np.uint8], pooling: int) -> None:
    tissue = np.random.default_rng(1).random((1, 2, 300, 300), np.float32)
    inputs = {"cell": cell, "tissue": tissue, "x": np.array([7]), "y": np.array([31])}
    session = onnxruntime.InferenceSession(context_graph(pooling), providers=["CPUExecutionProvider"])
    side = 1024 // pooling
    blocks = context(cell, tissue, 7, 31)[0].reshape(5, side, pooling, side, pooling)
    np.testing.assert_allclose(session.run(None, inputs)[0][0], blocks.mean(axis=(2, 4)), atol=1e-6)


def test_weights_sum_to_one_and_keep_symmetry() -> None:
    weights = upsampling_matrix(16, 4)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(weights, weights[::-1, ::-1])


def test_weights_are_keyss_kernel_for_a_of_minus_three_quarters() -> None:
    # By hand: the first output after sample 4's center lies 1/8 of a sample behind it.
    d = 0.125
    inner = [(1.25 * t - 2.25) * t * t + 1 for t in (d, 1 - d)]
    outer = [-0.75 * (t**3 - 5 * t**2 + 8 * t - 4) for t in (1 + d, 2 - d)]
    np.testing.assert_allclose(
        upsampling_matrix(16, 4)[4 * 4 + 2, 3:7], [outer[0], inner[0], inner[1], outer[1]], atol=1e-7
    )


def test_image_becomes_planes_between_zero_and_one(cell: NDArray[np.uint8]) -> None:
    session = onnxruntime.InferenceSession(image_graph(), providers=["CPUExecutionProvider"])
    planes = session.run(None, {"image": cell})[0]
    np.testing.assert_array_equal(planes[0], cell.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
