"""What models with an answer for each pixel have in common (segmentation, depth)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.structures import FeatureShape
from .batching import FeatureMaps


def upsample(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear, to (height, width), in float32."""
    x = x.float()
    if x.shape[-2:] == tuple(size):
        return x
    if x.requires_grad and x.device.type == "cpu":
        # interpolate's gradient is slow there: two products take a third of its time.
        rows, columns = (bilinear_weights(a, b) for a, b in zip(x.shape[-2:], size))
        with torch.autocast("cpu", enabled=False):
            return rows @ x @ columns.T
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


@lru_cache(maxsize=64)
def bilinear_weights(length: int, wanted: int) -> Tensor:
    """float32 [wanted, length]: what each of ``wanted`` values takes of ``length`` on a line."""
    line = torch.eye(length)[None]
    return F.interpolate(line, size=wanted, mode="linear", align_corners=False)[0].T.contiguous()


def joining_stride(shapes: dict[str, FeatureShape]) -> int:
    """The stride at which maps of several strides are joined: the finest from 8 on.

    A ConvNeXt's stride 4 would cost four times as much and brings little (it is the first,
    shallowest stage).
    """
    strides = [shape.stride for shape in shapes.values()]
    return min([s for s in strides if s >= 8] or strides)


def without_padding(answers: Tensor, batch: FeatureMaps) -> list[Tensor]:
    """Answers [B, C, h, w] of a padded batch -> [C, H, W] in the pixels of each image."""
    if batch.centred:
        return [upsample(one[None], size)[0] for one, size in zip(answers, batch.sizes)]
    return [
        upsample(one[None], batch.padded)[0, :, :height, :width]
        for one, (height, width) in zip(answers, batch.sizes)
    ]


def join_targets(truths: Sequence[Tensor], padded: tuple[int, int], fill: int) -> Tensor:
    """Truths [h, w] each -> [B, H, W] of the padded batch's size (H, W); ``fill`` elsewhere."""
    joined = truths[0].new_full((len(truths), *padded), fill)
    for row, truth in zip(joined, truths):
        row[: truth.shape[0], : truth.shape[1]] = truth
    return joined


class BatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d that takes its running statistics for a single value a channel (one small
    image left over at the end of an epoch), where torch's stops the training."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            mean, var = self.running_mean, self.running_var
            return F.batch_norm(x, mean, var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class LinearProbe(nn.Module):
    """{name: map} -> [B, outputs, h, w]: batch norm, dropout, a linear layer for each cell.

    Several maps are concatenated in Meta's; a 1x1 convolution of a concatenation is the sum of
    one for each map, so they need not be brought to one size before it.
    """

    def __init__(self, shapes: dict[str, FeatureShape], outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.stride = joining_stride(shapes)
        names = list(shapes)
        self._sized_by = next(n for n in names if shapes[n].stride == self.stride)
        self.norms = nn.ModuleDict({n: BatchNorm2d(shapes[n].channels) for n in names})
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.ModuleDict(
            {n: nn.Conv2d(shapes[n].channels, outputs, 1, bias=n == names[-1]) for n in names}
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
