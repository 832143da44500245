"""Anchors of fixed size in pixels, centred on the cells of each map."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def cell_shapes(sizes: Sequence[float], ratios: Sequence[float]) -> list[tuple[float, float]]:
    """(width, height) for every size and aspect ratio (height / width), sizes as sqrt(area)."""
    return [(size / math.sqrt(r), size * math.sqrt(r)) for r in ratios for size in sizes]


class AnchorGrid(nn.Module):
    """Anchor boxes for maps of given strides; independent of the image's size and padding.

    cells: (width, height) of the anchors of a cell, for each level; strides: of each level.
    Unlike torchvision's AnchorGenerator the stride is what the map says, not the image's size
    divided by the map's (which is wrong for rounded-up maps), and anchors sit on the centres
    of the cells.
    """

    def __init__(
        self, cells: Sequence[Sequence[tuple[float, float]]], strides: Sequence[int]
    ) -> None:
        super().__init__()
        assert len(cells) == len(strides)
        self.cells = [list(level) for level in cells]
        self.strides = list(strides)
        self._made: dict[tuple, Tensor] = {}

    def per_cell(self) -> list[int]:
        """Anchors of a cell, for each level."""
        return [len(level) for level in self.cells]

    def per_level(self, maps: Sequence[Tensor]) -> list[int]:
        """Anchors of each level for these maps."""
        return [n * m.shape[-2] * m.shape[-1] for n, m in zip(self.per_cell(), maps)]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps [B, C, h, w] of each level -> boxes float32 [A, 4], xyxy in pixels of the batch.

        Order: level, row, column, anchor of the cell. The last answers are remembered.
        """
        grids = tuple((m.shape[-2], m.shape[-1]) for m in maps)
        key = (grids, maps[0].device)
        if key not in self._made:
            if len(self._made) >= 16:
                self._made.clear()
            # Made outside of inference mode, so that training may use the remembered tensor.
            with torch.inference_mode(False), torch.no_grad():
                self._made[key] = self._make(grids).to(maps[0].device)
        return self._made[key]

    def _make(self, grids: Sequence[tuple[int, int]]) -> Tensor:
        levels = []
        for (height, width), stride, cell in zip(grids, self.strides, self.cells, strict=True):
            y = (torch.arange(height, dtype=torch.float32) + 0.5) * stride
            x = (torch.arange(width, dtype=torch.float32) + 0.5) * stride
            centre_y, centre_x = torch.meshgrid(y, x, indexing="ij")
            centres = torch.stack([centre_x, centre_y], dim=-1).reshape(-1, 1, 2)
            half = torch.tensor(cell, dtype=torch.float32).reshape(1, -1, 2) / 2
            levels.append(torch.cat([centres - half, centres + half], dim=-1).reshape(-1, 4))
        return torch.cat(levels)
