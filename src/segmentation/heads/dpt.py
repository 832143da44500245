"""DPT (https://arxiv.org/abs/2103.13413) rather than UperNet (https://arxiv.org/abs/1807.10221).

UperNet's pooling pyramid adds the wide view that convolutional backbones lack; a DINO ViT's
attention has it already. What a plain ViT lacks is resolution and mixing of depths, which is
what DPT does: taps of four depths become a pyramid down to stride 4. Meta's own dense heads on
DINOv2 and DINOv3 are DPT's, and depth estimation can use the same decoder.
"""

from __future__ import annotations

from torch import Tensor, nn

from ...backbones.dense import BatchNorm2d
from ...backbones.dpt import DPTDecoder
from ...core.structures import FeatureShape
from .base import SegmentationHead


class DptHead(SegmentationHead):
    """DPT's decoder, then 3x3 convolution, batch norm, ReLU, dropout, 1x1 convolution."""

    def __init__(self, shapes: dict[str, FeatureShape], num_classes: int, channels: int) -> None:
        super().__init__()
        self.decoder = DPTDecoder(shapes, channels)
        self.classify = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.1),
            nn.Conv2d(channels, num_classes, 1),
        )

    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        return self.classify(self.decoder(maps))
