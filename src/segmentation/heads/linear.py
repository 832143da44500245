"""Meta's linear probe (DINOv2, DINOv3): final norm, batch norm, dropout, 1x1 convolution."""

from __future__ import annotations

from ...backbones.dense import LinearProbe
from ...core.structures import FeatureShape
from .base import SegmentationHead


class LinearHead(LinearProbe, SegmentationHead):
    """A linear classifier for each cell. The backbone has applied its final norm already."""

    def __init__(self, shapes: dict[str, FeatureShape], num_classes: int, channels: int) -> None:
        super().__init__(shapes, num_classes, dropout=0.1)
