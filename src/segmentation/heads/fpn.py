"""The semantic branch of Panoptic FPN (https://arxiv.org/abs/1901.02446) on our pyramid."""

from __future__ import annotations

from torch import Tensor, nn

from ...backbones.dense import BatchNorm2d, upsample
from ...backbones.pyramid import build_pyramid
from ...core.structures import FeatureShape
from .base import SegmentationHead

LEVELS = 4  # strides 8, 16, 32, 64: the coarsest sees most of the image


class FpnHead(SegmentationHead):
    """The pyramid's levels, summed at its finest (stride 8), doubled once; a stride-4 map of the
    backbone (ConvNeXt's first stage) is added there."""

    def __init__(self, shapes: dict[str, FeatureShape], num_classes: int, channels: int) -> None:
        super().__init__()
        self.pyramid = build_pyramid(shapes, channels, LEVELS)
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            )
            for _ in self.pyramid.output_shape()
        )
        half = max(16, channels // 2)
        self.grow = nn.ConvTranspose2d(channels, half, 2, 2)
        fine = [(name, shape) for name, shape in shapes.items() if shape.stride == 4]
        self._fine = fine[0][0] if fine else None
        self.lateral = nn.Conv2d(fine[0][1].channels, half, 1) if fine else None
        self.classify = nn.Sequential(
            BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, padding=1, groups=half),
            nn.Conv2d(half, num_classes, 1),
        )

    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        levels = [layer(x) for layer, x in zip(self.levels, self.pyramid(maps).values())]
        total = levels[0]
        for level in levels[1:]:
            total = total + upsample(level, total.shape[-2:])
        x = self.grow(total)
        if self.lateral is not None and self._fine is not None:
            fine = self.lateral(maps[self._fine])
            x = x[..., : fine.shape[-2], : fine.shape[-1]] + fine
        return self.classify(x)
