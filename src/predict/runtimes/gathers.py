"""Sampling of maps by gathers: GridSample is silently wrong in some versions of TensorRT
(https://github.com/lightly-ai/lightly-train/issues/917)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F


def sample_by_gathers(
    maps: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """``F.grid_sample`` of bilinear mode with zeros around, align_corners false: maps
    [B, C, H, W], grid [B, h, w, 2] in [-1, 1] -> [B, C, h, w]."""
    assert mode == "bilinear" and padding_mode == "zeros" and not align_corners
    _, channels, height, width = maps.shape
    x = (grid[..., 0] + 1) * (width / 2) - 0.5
    y = (grid[..., 1] + 1) * (height / 2) - 0.5
    left, top = x.floor(), y.floor()
    flat = maps.flatten(2)
    total = maps.new_zeros(())
    for column, across in ((left, left + 1 - x), (left + 1, x - left)):
        for row, down in ((top, top + 1 - y), (top + 1, y - top)):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            place = torch.where(inside, row * width + column, 0.0)
            index = place.long().flatten(1)[:, None].expand(-1, channels, -1)
            values = flat.gather(2, index).unflatten(2, grid.shape[1:3])
            total = total + values * (across * down * inside)[:, None]
    return total


@contextmanager
def without_grid_sample() -> Iterator[None]:
    """Inside, ``F.grid_sample`` is the function above."""
    theirs = F.grid_sample
    torch.nn.functional.grid_sample = sample_by_gathers  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.nn.functional.grid_sample = theirs
