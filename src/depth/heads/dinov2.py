"""The heads of Meta's published DINOv2 models of depth, weight by weight
(https://github.com/facebookresearch/dinov2/blob/main/dinov2/hub/depth/decode_heads.py).

Both read the maps without the final norm, each cell with its layer's class token behind it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones.dense import upsample
from ...core.errors import UserError
from ...core.structures import FeatureShape
from .base import Bins, DepthHead, Range

UPSAMPLE = 4


class Dinov2LinearHead(DepthHead):
    """A linear layer on the joined maps, 256 bins; no batch norm. Meta upsamples the features by 4
    before the layer; what a linear layer says of upsampled features is its answer upsampled."""

    class_token = True
    norm = False

    def __init__(self, shapes: dict[str, FeatureShape], span: Range, channels: int) -> None:
        super().__init__()
        _of_a_vit(shapes, "dinov2-linear")
        self.score = nn.Conv2d(sum(2 * s.channels for s in shapes.values()), span.bins, 1)
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.zeros_(self.score.bias)  # type: ignore[arg-type]
        self.bins = Bins(span)

    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        scores = self.score(torch.cat([*maps.values()], dim=1))
        height, width = scores.shape[-2:]
        return self.bins(upsample(scores, (height * UPSAMPLE, width * UPSAMPLE)))


class Dinov2DptHead(DepthHead):
    """DPT with the class token projected into each cell (``readout``), and metres from a
    regression: no bins. Answers at 8 times the grid of the ViT, within the range."""

    class_token = True
    norm = False

    def __init__(self, shapes: dict[str, FeatureShape], span: Range, channels: int) -> None:
        super().__init__()
        _of_a_vit(shapes, "dinov2-dpt")
        if len(shapes) != 4:
            raise UserError("--head dinov2-dpt reads four maps: give --feature-extractor multi")
        self.low, self.high = span.low, span.high
        width = next(iter(shapes.values())).channels
        widths = [width // 8, width // 4, width // 2, width]
        self.readout = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for _ in widths)
        self.project = nn.ModuleList(nn.Conv2d(width, own, 1) for own in widths)
        self.resize = nn.ModuleList(
            [
                nn.ConvTranspose2d(widths[0], widths[0], 4, stride=4),
                nn.ConvTranspose2d(widths[1], widths[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(widths[3], widths[3], 3, stride=2, padding=1),
            ]
        )
        self.smooth = nn.ModuleList(
            nn.Conv2d(own, channels, 3, padding=1, bias=False) for own in widths
        )
        self.fuse = nn.ModuleList(Fusion(channels, joins=index > 0) for index in range(4))
        self.last = nn.Conv2d(channels, channels, 3, padding=1)
        self.metres = nn.ModuleList(
            [
                nn.Conv2d(channels, channels // 2, 3, padding=1),
                nn.Conv2d(channels // 2, 32, 3, padding=1),
                nn.Conv2d(32, 1, 1),
            ]
        )

    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        parts = zip(maps.values(), self.readout, self.project, self.resize, self.smooth)
        levels = [
            smooth(resize(project(F.gelu(readout(cells)))))
            for cells, readout, project, resize, smooth in parts
        ]
        x = self.fuse[0](levels[3])
        for index in (1, 2, 3):
            x = self.fuse[index](x, levels[3 - index])
        x = self.metres[0](self.last(x).relu())
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        depth = self.metres[2](self.metres[1](x).relu()).float().relu() + self.low
        return depth.clamp(self.low, self.high)


class Fusion(nn.Module):
    """A coarse map and the next finer one -> twice the size of the coarse."""

    def __init__(self, channels: int, joins: bool) -> None:
        super().__init__()
        self.skip = PlainResidual(channels) if joins else None
        self.refine = PlainResidual(channels)
        self.output = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, finer: Tensor | None = None) -> Tensor:
        if finer is not None:
            assert self.skip is not None
            if finer.shape != x.shape:  # the stride-2 level of an odd grid is rounded up
                finer = F.interpolate(finer, size=x.shape[-2:], mode="bilinear")
            x = x + self.skip(finer)
        x = self.refine(x)
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        return self.output(x)


class PlainResidual(nn.Module):
    """x + two 3x3 convolutions of it, each behind a ReLU; no norms."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(F.relu(x))))


def _of_a_vit(shapes: dict[str, FeatureShape], head: str) -> None:
    """UserError for the maps of a ConvNeXt."""
    if "layer" not in next(iter(shapes)):
        raise UserError(f"--head {head} is for a ViT: give --head linear or dpt")
