"""Meta's linear probe (DINOv2, DINOv3): final norm, batch norm, dropout, 1x1 convolution."""

from __future__ import annotations

from torch import Tensor, nn

from src.core.structures import FeatureShape
from src.segmentation.heads.base import SegmentationHead, joining_stride, upsample


class LinearHead(SegmentationHead):
    """A linear classifier for each cell. The backbone has applied its final norm already.

    Several maps are concatenated in Meta's; a 1x1 convolution of a concatenation is the sum of
    one for each map, so they need not be brought to one size before it.
    """

    def __init__(self, shapes: dict[str, FeatureShape], num_classes: int, channels: int) -> None:
        super().__init__()
        stride = joining_stride(shapes)
        names = list(shapes)
        self._sized_by = next(n for n in names if shapes[n].stride == stride)
        self.norms = nn.ModuleDict({n: nn.BatchNorm2d(shapes[n].channels) for n in names})
        self.dropout = nn.Dropout2d(0.1)
        self.classify = nn.ModuleDict(
            {n: nn.Conv2d(shapes[n].channels, num_classes, 1, bias=n == names[-1]) for n in names}
        )
        for layer in self.classify.values():
            assert isinstance(layer, nn.Conv2d)
            nn.init.normal_(layer.weight, std=0.01)

    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        size = maps[self._sized_by].shape[-2:]
        parts = [
            upsample(layer(self.dropout(self.norms[name](maps[name]))), size)
            for name, layer in self.classify.items()
        ]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total
