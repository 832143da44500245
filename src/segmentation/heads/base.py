"""What all segmentation heads have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

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

    def select(self, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        """The maps that the head looks at."""
        return maps if self.reads is None else {name: maps[name] for name in self.reads}

    def losses(
        self, maps: dict[str, Tensor], masks: Tensor, criterion: Criterion
    ) -> dict[str, Tensor]:
        """Scalar losses of a batch; masks uint8 [B, H, W] with IGNORE, padded as the images."""
        return criterion(upsample(self(maps), masks.shape[-2:]), masks)
