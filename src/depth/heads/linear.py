"""Meta's linear probe of depth: lin1 on the last map, lin4 on four."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ...backbones.dense import LinearProbe, upsample
from ...core.structures import FeatureShape
from .base import Bins, DepthHead, Range

FINEST = 4  # stride at which the bins are averaged


class LinearHead(DepthHead):
    """A linear layer for each cell and its class token, 256 bins (https://arxiv.org/abs/2304.07193).

    ``--feature-extractor last`` is lin1, ``multi`` lin4. Meta's upsamples the features by 4
    before the layer; a linear layer of upsampled features is the upsampled layer's, so here the
    scores are. Ours has a batch norm before the layer.
    """

    class_token = True

    def __init__(self, shapes: dict[str, FeatureShape], span: Range, channels: int) -> None:
        super().__init__()
        joined = {name: replace(s, channels=2 * s.channels) for name, s in shapes.items()}
        self.probe = LinearProbe(joined, span.bins)
        self.grow = max(1, self.probe.stride // FINEST)
        self.bins = Bins(span)

    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        scores = self.probe(maps)
        height, width = scores.shape[-2:]
        return self.bins(upsample(scores, (height * self.grow, width * self.grow)))
