"""The tutorial's decoder: a 3x3 convolution over the joined maps, ReLU, a 1x1 convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...backbones.dense import joining_stride, upsample
from ...core.structures import FeatureShape
from .base import SegmentationHead


class ConvHead(SegmentationHead):
    """Maps of one stride are joined as they are, those of a ConvNeXt at stride 8."""

    def __init__(self, shapes: dict[str, FeatureShape], num_classes: int, channels: int) -> None:
        super().__init__()
        stride = joining_stride(shapes)
        self._sized_by = next(name for name, shape in shapes.items() if shape.stride == stride)
        joined = sum(shape.channels for shape in shapes.values())
        self.decode = nn.Sequential(
            nn.Conv2d(joined, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, num_classes, 1),
        )

    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        size = maps[self._sized_by].shape[-2:]
        return self.decode(torch.cat([upsample(x, size) for x in maps.values()], dim=1))
