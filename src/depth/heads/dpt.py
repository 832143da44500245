"""DPT (https://arxiv.org/abs/2103.13413) with bins; Meta evaluates depth with it, too."""

from __future__ import annotations

from torch import Tensor, nn

from ...backbones.dpt import DPTDecoder
from ...core.structures import FeatureShape
from .base import Bins, DepthHead, Range


class DptHead(DepthHead):
    """DPT's decoder at stride 4, a 3x3 convolution, and a 3x3 convolution to the bins."""

    def __init__(self, shapes: dict[str, FeatureShape], span: Range, channels: int) -> None:
        super().__init__()
        self.decoder = DPTDecoder(shapes, channels)
        self.smooth = nn.Conv2d(channels, channels, 3, padding=1)
        self.score = nn.Conv2d(channels, span.bins, 3, padding=1)
        self.bins = Bins(span)

    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        return self.bins(self.score(self.smooth(self.decoder(maps)).relu()))
