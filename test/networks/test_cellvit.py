"""CellViT's networks against what the authors' own program computes for the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cellvit_cases import REFERENCES, reference_image, weights

from softctm.networks.cellvit import CellViT, CellViTSpec
from softctm.networks.vit import ENCODERS, Attention, EncoderSpec, VisionTransformer


@pytest.mark.parametrize("encoder", REFERENCES)
def test_names_map_one_to_one(shared: Path, encoder: str) -> None:
    names = json.loads(
        (shared / "reference" / "cellvit" / f"{REFERENCES[encoder][0]}_names.json").read_text()
    )
    with torch.device("meta"):
        state = CellViT(CellViTSpec(encoder)).state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == names


@pytest.mark.parametrize("encoder", REFERENCES)
def test_outputs_are_the_references(shared: Path, encoder: str) -> None:
    folder = shared / "reference" / "cellvit"
    network = CellViT(CellViTSpec(encoder)).eval()
    network.load_state_dict(weights(folder, encoder))
    with torch.inference_mode():
        output = network((reference_image(folder) - 0.5) / 0.5)
    expected = np.load(folder / f"{REFERENCES[encoder][0]}_outputs.npz")
    for name, value in output._asdict().items():
        np.testing.assert_allclose(value.numpy(), expected[name], rtol=0, atol=1e-4, err_msg=name)


def test_sizes_of_sam_are_sams() -> None:
    # Parameters of Meta's image encoders, in millions: 89.67, 308.28, 637.03 (Kirillov et al. 2023).
    for name, millions in (("SAM-B", 89.67), ("SAM-L", 308.28), ("SAM-H", 637.03)):
        with torch.device("meta"):
            encoder = VisionTransformer(ENCODERS[name], 19)
        assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


def test_relative_positions_add_a_bias_for_row_and_column() -> None:
    """Against the sum over all pairs of tokens, written out."""
    torch.manual_seed(0)
    attention = Attention(8, 2, grid=3)
    torch.nn.init.normal_(attention.rel_pos_h)
    torch.nn.init.normal_(attention.rel_pos_w)
    x = torch.randn(1, 9, 8)
    q, k, v = attention.qkv(x).view(9, 3, 2, 4).permute(1, 2, 0, 3)
    logits = q @ k.transpose(1, 2) / 2
    for i in range(9):
        for j in range(9):
            bias = attention.rel_pos_h[i // 3 - j // 3 + 2] + attention.rel_pos_w[i % 3 - j % 3 + 2]
            logits[:, i, j] += q[:, i] @ bias
    expected = attention.proj((logits.softmax(-1) @ v).transpose(0, 1).reshape(1, 9, 8))
    torch.testing.assert_close(attention(x, 3, 3), expected)


@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("size", [(48, 80), (16, 16), (320, 16)])
def test_images_of_any_multiple_of_a_token(windowed: bool, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    encoder = VisionTransformer(EncoderSpec(8, 4, 2, grid=6, windowed=windowed), 3).eval()
    torch.nn.init.normal_(encoder.pos_embed)
    with torch.inference_mode():
        image = torch.randn(2, 3, *size)
        summary, tokens = encoder(image)
        assert [tuple(t.shape) for t in tokens] == [(2, 8, size[0] // 16, size[1] // 16)] * 4
        encoder.fix_size(size[0] // 16, size[1] // 16)
        again, _ = encoder(image)
    torch.testing.assert_close(again, summary)
