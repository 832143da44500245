"""A dense head with one anchor a cell: adaptive assignment (ATSS, https://arxiv.org/abs/1912.02424)
and scores that say how well a box fits (varifocal loss, https://arxiv.org/abs/2008.13367)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...backbones.batching import FeatureMaps
from ...core.structures import DetectionTarget
from .anchors import AnchorGrid
from .boxes import Weights, decode
from .dense import DenseDetector
from .postprocess import take, top_per_level
from .quality import match_adaptive, quality_losses
from .retinanet import group_norm


class ATSSHead(nn.Module):
    """Two towers, shared by all levels: four times 3x3 convolution, GroupNorm, ReLU.

    Scores start at 0.01 (the focal prior), boxes at the anchors.
    """

    def __init__(self, channels: int, num_classes: int, depth: int = 4) -> None:
        super().__init__()
        self.class_tower = _tower(channels, depth)
        self.box_tower = _tower(channels, depth)
        self.classes = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.boxes = nn.Conv2d(channels, 4, 3, padding=1)
        for layer, bias in ((self.classes, -math.log(99.0)), (self.boxes, 0.0)):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps [B, C, h, w] -> box offsets [B, A, 4] and logits [B, A, classes], float32."""
        boxes = [_rows(self.boxes(self.box_tower(x))) for x in maps]
        classes = [_rows(self.classes(self.class_tower(x))) for x in maps]
        return torch.cat(boxes, dim=1).float(), torch.cat(classes, dim=1).float()


def _tower(channels: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        layers += [convolution, group_norm(channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _rows(answer: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, h * w, C]"""
    return answer.flatten(2).transpose(1, 2)


class ATSS(DenseDetector):
    """One square anchor a cell, of 4 strides; a score says class and IoU at once."""

    score = 0.01
    side = 4.0  # of an anchor, in strides
    scale: Weights = (1.0, 1.0, 1.0, 1.0)  # of the codes of boxes

    def assemble(self, strides: list[int]) -> None:
        sides = [self.side * stride for stride in strides]
        self.anchors = AnchorGrid([[(side, side)] for side in sides], strides)
        self.head = ATSSHead(self.neck.channels, self.num_classes - 1)

    def losses(
        self, maps: list[Tensor], batch: FeatureMaps, targets: Sequence[DetectionTarget]
    ) -> dict[str, Tensor]:
        offsets, logits = self.head(maps)
        anchors, counts = self.anchors(maps), self.anchors.per_level(maps)
        matches = [match_adaptive(t["boxes"].float(), anchors, counts) for t in targets]
        boxes = decode(offsets, anchors, self.scale)
        return quality_losses(boxes, logits, anchors, matches, targets)

    def detect(self, maps: list[Tensor], padded: tuple[int, int]) -> dict[str, Tensor]:
        offsets, logits = self.head(maps)
        anchors, counts = self.anchors(maps), self.anchors.per_level(maps)
        values, flat = top_per_level(logits, counts, self.candidates)
        index = torch.div(flat, logits.shape[2], rounding_mode="floor")
        boxes = decode(take(offsets, index), anchors[index], self.scale)
        labels = flat % logits.shape[2] + 1
        return {"boxes": boxes, "scores": values.sigmoid(), "labels": labels}
