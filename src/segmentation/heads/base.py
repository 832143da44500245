"""What all segmentation heads have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ...backbones.base import Backbone
from ...backbones.dense import upsample

# (logits float [B, C, H, W], masks uint8 [B, H, W] with IGNORE) -> scalar terms by name
Criterion = Callable[[Tensor, Tensor], dict[str, Tensor]]


class SegmentationHead(nn.Module):
    """Feature maps {name: [B, c, h, w]} -> logits [B, C, h', w'] at a stride of its own.

    The softmax over C is the probability of a class, also where a head's own way of scoring is
    another. Subclasses fill ``forward``; those with a loss of their own override ``losses``.

    reads: names of the maps it looks at (None: all).
    """

    reads: Sequence[str] | None = None

    @classmethod
    def on(
        cls, backbone: Backbone, num_classes: int, channels: int, queries: int | None = None
    ) -> SegmentationHead:
        """The head for a backbone; channels: its width inside; queries: how many, of those that
        have some."""
        build: Any = cls  # each takes the shapes of the maps
        return build(backbone.output_shape(), num_classes, channels)

    def plan(self, steps: int) -> None:
        """How many training steps there will be, for heads that change as they go."""

    def read(self, backbone: Backbone, batch: Tensor) -> dict[str, Tensor]:
        """What the head takes of the backbone for a normalised batch [B, 3, H, W]."""
        maps = backbone(batch)
        return maps if self.reads is None else {name: maps[name] for name in self.reads}

    def losses(
        self, maps: dict[str, Tensor], masks: Tensor, criterion: Criterion
    ) -> dict[str, Tensor]:
        """Scalar losses of a batch; masks uint8 [B, H, W] with IGNORE, padded as the images."""
        return criterion(upsample(self(maps), masks.shape[-2:]), masks)
