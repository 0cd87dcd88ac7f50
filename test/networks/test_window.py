"""Windows: from a plane back to numbers, and maps carried between the patches and back."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from softctm.networks.window import cells_to_tissue, tissue_to_cells, window_of, window_plane


def window(*shares: float) -> Tensor:
    return torch.tensor([shares])


@pytest.mark.parametrize("shares", [(0.0, 0.0, 0.25, 0.25), (0.75, 0.1, 0.25, 0.25), (0.337, 0.61, 0.2, 0.3)])
@pytest.mark.parametrize("side", [64, 100])
def test_a_plane_tells_the_window_that_it_was_made_of(shares: tuple[float, ...], side: int) -> None:
    found = window_of(window_plane(shares, side)[None])
    # A border within a pixel is known to a hundredth of a pixel or two.
    torch.testing.assert_close(found, window(*shares), atol=0.02 / side, rtol=0)


def test_a_plane_averaged_down_tells_the_same_window() -> None:
    plane = torch.zeros(2, 1, 1024, 1024)
    plane[0, 0, 77:333, 301:557] = 1
    plane[1, 0, 768:1024, 0:256] = 1
    found = window_of(functional.avg_pool2d(plane, 8)) * 1024
    wanted = torch.tensor([[301.0, 77, 256, 256], [0.0, 768, 256, 256]])
    torch.testing.assert_close(found, wanted, atol=0.2, rtol=0)


def test_cell_map_gets_the_pixels_of_its_window() -> None:
    tissue = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    corners = torch.tensor([[4, 9], [24, 0]])
    windows = torch.cat([corners, torch.full((2, 2), 8)], 1) / 32
    found = tissue_to_cells(tissue, windows, (8, 8))
    for index, (x, y) in enumerate(corners.tolist()):
        torch.testing.assert_close(found[index], tissue[index, :, y : y + 8, x : x + 8])


def test_cell_map_is_enlarged_as_pytorch_enlarges_inside_the_window() -> None:
    tissue = torch.rand(1, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    found = tissue_to_cells(tissue, window(10 / 32, 3 / 32, 0.25, 0.25), (32, 32))
    whole = functional.interpolate(tissue, scale_factor=4, mode="bilinear")
    torch.testing.assert_close(found, whole[..., 12:44, 40:72])


def test_tissue_map_gets_the_means_of_the_cell_map_in_the_window_and_zero_elsewhere() -> None:
    cells = torch.rand(1, 2, 32, 32, generator=torch.Generator().manual_seed(0)) + 1
    found = cells_to_tissue(cells, window(12 / 32, 20 / 32, 0.25, 0.25), (32, 32))
    wanted = torch.zeros(1, 2, 32, 32)
    wanted[..., 20:28, 12:20] = functional.avg_pool2d(cells, 4)
    torch.testing.assert_close(found, wanted)


def test_sides_that_do_not_divide_by_four_keep_their_place() -> None:
    ramp = torch.linspace(0, 1, 30).expand(1, 1, 30, 30)
    found = cells_to_tissue(ramp, window(0.25, 0.25, 0.5, 0.5), (64, 64))[0, 0]
    # In the middle of the window, away from its border, the ramp is where it was.
    inside = found[32, 22:42]
    centers = (torch.arange(22, 42) + 0.5) / 64
    wanted = ((centers - 0.25) / 0.5 * 30 - 0.5) / 29
    torch.testing.assert_close(inside, wanted, atol=1e-5, rtol=0)


def test_a_turned_pair_gives_turned_maps() -> None:
    generator = torch.Generator().manual_seed(1)
    tissue, cells = (torch.rand(1, 2, 48, 48, generator=generator) for _ in range(2))
    plane = window_plane((0.31, 0.52, 0.25, 0.25), 48)[None]
    near = tissue_to_cells(tissue, window_of(plane), (48, 48))
    far = cells_to_tissue(cells, window_of(plane), (48, 48))
    for turns, flips in itertools.product(range(4), (False, True)):

        def turned(maps: Tensor, turns: int = turns, flips: bool = flips) -> Tensor:
            maps = torch.rot90(maps, turns, (2, 3))
            return maps.flip(3) if flips else maps

        where = window_of(turned(plane))
        torch.testing.assert_close(
            tissue_to_cells(turned(tissue), where, (48, 48)), turned(near), atol=1e-4, rtol=0
        )
        torch.testing.assert_close(
            cells_to_tissue(turned(cells), where, (48, 48)), turned(far), atol=1e-4, rtol=0
        )


def test_gradients_reach_both_patches() -> None:
    tissue = torch.rand(1, 1, 16, 16, requires_grad=True)
    cells = torch.rand(1, 1, 16, 16, requires_grad=True)
    where = window(0.5, 0.25, 0.25, 0.25)
    tissue_to_cells(tissue, where, (16, 16)).sum().backward()
    cells_to_tissue(cells, where, (16, 16)).sum().backward()
    assert tissue.grad is not None
    assert cells.grad is not None
    assert (tissue.grad[0, 0, 4:8, 8:12] > 0).all()
    assert (tissue.grad[0, 0, 10:] == 0).all()
    assert (cells.grad > 0).all()
