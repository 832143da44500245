"""What all segmentation heads have in common."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from src.core.structures import FeatureShape

# (logits float [B, C, H, W], masks uint8 [B, H, W] with IGNORE) -> scalar terms by name
Criterion = Callable[[Tensor, Tensor], dict[str, Tensor]]


class SegmentationHead(nn.Module):
    """Feature maps {name: [B, c, h, w]} -> logits [B, C, h', w'] at a stride of its own.

    The softmax over C is the probability of a class, also where a head's own way of scoring is
    another. Subclasses fill ``forward``; those with a loss of their own override ``losses``.
    """

    def losses(
        self, maps: dict[str, Tensor], masks: Tensor, criterion: Criterion
    ) -> dict[str, Tensor]:
        """Scalar losses of a batch; masks uint8 [B, H, W] with IGNORE, padded as the images."""
        return criterion(upsample(self(maps), masks.shape[-2:]), masks)


def upsample(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear, to (height, width), in float32."""
    x = x.float()
    if x.shape[-2:] == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def joining_stride(shapes: dict[str, FeatureShape]) -> int:
    """The stride at which maps of several strides are joined: the finest from 8 on.

    A ConvNeXt's stride 4 would cost four times as much and brings little (it is the first,
    shallowest stage).
    """
    strides = [shape.stride for shape in shapes.values()]
    return min([s for s in strides if s >= 8] or strides)
