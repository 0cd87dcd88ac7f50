"""Vision transformers as CellViT's encoders: ViT-S of ViT-256, and SAM's image encoders.

Parameters have the names of the published checkpoints: DINO's for ViT-256, SAM's for SAM.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

TOKEN = 16
"""Pixels of a token's side."""
WINDOW = 14
"""Tokens of a side of SAM's attention windows."""


@dataclass(frozen=True)
class EncoderSpec:
    """What a vision transformer is made of.

    Attributes
    ----------
    width, depth, heads : int
        Features of a token; blocks; attention heads.
    grid : int
        Tokens of a side at the resolution that the positions were trained at.
    windowed : bool
        SAM: windowed attention and relative positions; else a class token.
    """

    width: int
    depth: int
    heads: int
    grid: int
    windowed: bool

    @property
    def skips(self) -> tuple[int, ...]:
        """The four blocks, counted from 1, whose tokens a decoder reads; of SAM the ones that see all."""
        return tuple(self.depth * quarter // 4 for quarter in range(1, 5))


ENCODERS = {
    "256": EncoderSpec(384, 12, 6, grid=14, windowed=False),
    "SAM-B": EncoderSpec(768, 12, 12, grid=64, windowed=True),
    "SAM-L": EncoderSpec(1024, 24, 16, grid=64, windowed=True),
    "SAM-H": EncoderSpec(1280, 32, 16, grid=64, windowed=True),
}


class Attention(nn.Module):
    """Multi-head self-attention, with SAM's relative positions of a grid where its size is given."""

    def __init__(self, width: int, heads: int, grid: int = 0) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        if grid:
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * grid - 1, width // heads))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * grid - 1, width // heads))
        self.relative = grid > 0

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """(B, N, C) → (B, N, C); N is height × width where positions are relative."""
        batch, number, channels = x.shape
        q, k, v = self.qkv(x).view(batch, number, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scale = q.shape[-1] ** -0.5
        if self.relative:
            # Each query's bias depends on the key's row and column only: a dot product with their indicators.
            cells = q.view(batch, self.heads, height, width, -1)
            of_row = torch.einsum("bnyxc,ykc->bnyxk", cells, _relative(self.rel_pos_h, height))
            of_column = torch.einsum("bnyxc,xkc->bnyxk", cells, _relative(self.rel_pos_w, width))
            rows = torch.eye(height, dtype=q.dtype, device=q.device).repeat_interleave(width, 0)
            columns = torch.eye(width, dtype=q.dtype, device=q.device).repeat(height, 1)
            indicators = torch.cat([rows, columns], 1).expand(batch, self.heads, -1, -1)
            q = torch.cat([q * scale, of_row.flatten(2, 3), of_column.flatten(2, 3)], -1)
            k, scale = torch.cat([k, indicators], -1), 1.0
        mixed = functional.scaled_dot_product_attention(q, k, v, scale=scale)
        mixed = mixed.transpose(1, 2).reshape(batch, number, channels)
        result: Tensor = self.proj(mixed)
        return result


def _relative(positions: Tensor, side: int) -> Tensor:
    """(side, side, C): of each query's row (or column) against each key's, for a grid of `side`."""
    if len(positions) != 2 * side - 1:
        resized = functional.interpolate(positions.T[None], size=2 * side - 1, mode="linear")
        positions = resized[0].T
    steps = torch.arange(side, device=positions.device)
    return positions[steps[:, None] - steps[None] + side - 1]


class Block(nn.Module):
    """A transformer block; attention within windows where `window` is not 0."""

    def __init__(self, spec: EncoderSpec, window: int) -> None:
        super().__init__()
        width, self.window = spec.width, window
        first, second = ("lin1", "lin2") if spec.windowed else ("fc1", "fc2")
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, spec.heads, (window or spec.grid) if spec.windowed else 0)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        layers: list[tuple[str, nn.Module]] = [
            (first, nn.Linear(width, 4 * width)), ("act", nn.GELU()), (second, nn.Linear(4 * width, width)),
        ]  # fmt: skip
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """(B, N, C) → (B, N, C), tokens row by row."""
        normed = self.norm1(x)
        if self.window:
            x = x + self._in_windows(normed, height, width)
        else:
            x = x + self.attn(normed, height, width)
        result: Tensor = x + self.mlp(self.norm2(x))
        return result

    def _in_windows(self, x: Tensor, height: int, width: int) -> Tensor:
        side, channels = self.window, x.shape[-1]
        down, right = -height % side, -width % side
        x = functional.pad(x.view(-1, height, width, channels), (0, 0, 0, right, 0, down))
        rows, columns = (height + down) // side, (width + right) // side
        x = x.view(-1, rows, side, columns, side, channels).transpose(2, 3)
        x = self.attn(x.reshape(-1, side * side, channels), side, side)
        x = x.view(-1, rows, columns, side, side, channels).transpose(2, 3)
        x = x.reshape(-1, height + down, width + right, channels)[:, :height, :width]
        return x.reshape(-1, height * width, channels)


class PatchEmbedding(nn.Module):
    """One token for each square of pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, TOKEN, TOKEN)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, width, H / 16, W / 16)."""
        result: Tensor = self.proj(x)
        return result


class VisionTransformer(nn.Module):
    """A ViT that returns what a decoder reads: the tokens of four blocks, and the logits of a class.

    Parameters
    ----------
    spec : EncoderSpec
    classes : int
        Of the head upon the class token; unused by SAM's encoders, whose summary are the neck's features.
    """

    def __init__(self, spec: EncoderSpec, classes: int) -> None:
        super().__init__()
        self.spec = spec
        self._fixed = False
        self.patch_embed = PatchEmbedding(spec.width)
        windows = [
            WINDOW if spec.windowed and number not in spec.skips else 0 for number in range(1, spec.depth + 1)
        ]
        self.blocks = nn.ModuleList(Block(spec, window) for window in windows)
        if spec.windowed:
            self.pos_embed = nn.Parameter(torch.zeros(1, spec.grid, spec.grid, spec.width))
            self.neck = nn.Sequential(
                nn.Conv2d(spec.width, 256, 1, bias=False),
                ChannelNorm(256),
                nn.Conv2d(256, 256, 3, padding=1, bias=False),
                ChannelNorm(256),
            )
        else:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, spec.width))
            self.pos_embed = nn.Parameter(torch.zeros(1, 1 + spec.grid**2, spec.width))
            self.norm = nn.LayerNorm(spec.width, eps=1e-6)
            self.head = nn.Linear(spec.width, classes)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Run all blocks.

        Parameters
        ----------
        image : (B, 3, H, W)
            Normalized; H and W multiples of 16.

        Returns
        -------
        summary : (B, classes) or (B, 256)
            The head's logits; of SAM the mean of the neck's features.
        tokens : list of four (B, width, H / 16, W / 16)
        """
        x = self.patch_embed(image)
        height, width = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2)
        positions = self._positions(height, width)
        if self.spec.windowed:
            x = x + positions
        else:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + positions
        first = 0 if self.spec.windowed else 1
        tokens = []
        for number, block in enumerate(self.blocks, 1):
            x = block(x, height, width)
            if number in self.spec.skips:
                tokens.append(x[:, first:].transpose(1, 2).unflatten(2, (height, width)))
        summary = self.neck(tokens[-1]).mean((2, 3)) if first == 0 else self.head(self.norm(x)[:, 0])
        return summary, tokens

    def fix_size(self, height: int, width: int) -> None:
        """Keep the positions of grids of this size only, so that an exported graph need not make them."""
        with torch.no_grad():
            self.pos_embed = nn.Parameter(self._positions(height, width).clone())
        self._fixed = True

    def _positions(self, height: int, width: int) -> Tensor:
        """(1, N, C) for a grid that may not be the one that was trained.

        As the published programs do: SAM's table is cut where the image is smaller than it; ViT's is
        interpolated bicubically, by a factor that DINO makes a tenth of a token too large.
        """
        grid = self.spec.grid
        if self._fixed:
            return self.pos_embed
        if self.spec.windowed and max(height, width) <= grid:
            return self.pos_embed[:, :height, :width].flatten(1, 2)
        if (height, width) == (grid, grid):
            return self.pos_embed
        first = 0 if self.spec.windowed else 1
        of_class = [] if self.spec.windowed else [self.pos_embed[:, :1]]
        table = self.pos_embed.reshape(1, -1, self.spec.width)[:, first:]
        table = table.transpose(1, 2).unflatten(2, (grid, grid))
        factor = ((height + 0.1) / grid, (width + 0.1) / grid)
        table = functional.interpolate(table, scale_factor=factor, mode="bicubic", align_corners=False)
        return torch.cat([*of_class, table.flatten(2).transpose(1, 2)], 1)


class ChannelNorm(nn.LayerNorm):
    """Layer normalization over the channels of a map."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)
