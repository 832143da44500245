"""SSD (https://arxiv.org/abs/1512.02325) on one map or on a pyramid: torchvision's head."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.ssd import SSDHead

from ...backbones.batching import FeatureMaps
from ...core.structures import DetectionTarget
from .anchors import AnchorGrid, cell_shapes
from .boxes import decode, encode
from .dense import DenseDetector
from .matching import global_mean_count, match_anchors, matched_targets
from .postprocess import take, top_per_class

GROWTH = 2.2  # of the anchors' size from level to level: 16, 35, 77, 170, 375 pixels


def ssd_anchors(strides: list[int]) -> AnchorGrid:
    """Default boxes in pixels, from 2 strides of the finest level on.

    A pyramid has at each level a square of its size, one between it and the next level's, and
    ratios 2 (and 3 in the middle). One map alone has squares of 32 to 512 pixels, those
    between, and ratio 2. They do not depend on the image's size: a padded or oblong input has
    the same boxes.
    """
    cells = []
    if len(strides) == 1:
        sizes = [32.0 * 2**i for i in range(5)]
        squares = cell_shapes([s * math.sqrt(2) for s in sizes], [1.0])
        return AnchorGrid([cell_shapes(sizes, [1.0, 2.0, 0.5]) + squares], strides)
    for i in range(len(strides)):
        size = 2 * strides[0] * GROWTH**i
        middle = 0 < i < len(strides) - 1
        ratios = [1.0, 2.0, 0.5, 3.0, 1 / 3] if middle else [1.0, 2.0, 0.5]
        squares = cell_shapes([size * math.sqrt(GROWTH)], [1.0])
        cells.append(cell_shapes([size], ratios) + squares)
    return AnchorGrid(cells, strides)


class SSD(DenseDetector):
    """SSD: softmax over classes and background, hard negatives mined 3 to 1."""

    score, candidates, limit = 0.01, 400, 200
    iou = 0.5  # of foreground at least
    scale = (10.0, 10.0, 5.0, 5.0)  # of the codes of boxes
    negatives = 3  # for each foreground

    def assemble(self, strides: list[int]) -> None:
        self.anchors = ssd_anchors(strides)
        per_cell = self.anchors.per_cell()
        self.head = SSDHead([self.neck.channels] * len(per_cell), per_cell, self.num_classes)

    def outputs(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps -> box offsets [B, A, 4] and logits [B, A, classes] (0 = background), float32."""
        answer = self.head(maps)
        return answer["bbox_regression"].float(), answer["cls_logits"].float()

    def losses(
        self, maps: list[Tensor], batch: FeatureMaps, targets: Sequence[DetectionTarget]
    ) -> dict[str, Tensor]:
        offsets, logits = self.outputs(maps)
        return self.loss_of(offsets, logits, self.anchors(maps), targets)

    def loss_of(
        self, offsets: Tensor, logits: Tensor, anchors: Tensor, targets: Sequence[DetectionTarget]
    ) -> dict[str, Tensor]:
        """Losses of head outputs [B, A, 4] and [B, A, classes], by anchors [A, 4].

        torchvision's, except that an image without objects gives its hardest 3 negatives.
        """
        matches = [
            match_anchors(t["boxes"].float(), anchors, self.iou, self.iou, rescue_ties=False)
            for t in targets
        ]
        boxes, labels = matched_targets(targets, matches, anchors)
        found = labels > 0
        codes = encode(boxes, anchors, self.scale)
        box_loss = F.smooth_l1_loss(offsets, codes, reduction="none").sum(dim=2)
        class_loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        class_loss = class_loss.view_as(labels)
        with torch.no_grad():
            wanted = (self.negatives * found.sum(dim=1, keepdim=True)).clamp(min=self.negatives)
            hardness = torch.where(found, -torch.inf, class_loss)
            rank = hardness.argsort(dim=1, descending=True).argsort(dim=1)
            mined = (rank < wanted) & ~found
        count = global_mean_count(found.sum())
        return {
            "bbox_regression": torch.where(found, box_loss, 0.0).sum() / count,
            "classification": torch.where(found | mined, class_loss, 0.0).sum() / count,
        }

    def detect(self, maps: list[Tensor], padded: tuple[int, int]) -> dict[str, Tensor]:
        offsets, logits = self.outputs(maps)
        return self.select(offsets, logits, self.anchors(maps))

    def select(self, offsets: Tensor, logits: Tensor, anchors: Tensor) -> dict[str, Tensor]:
        """Head outputs -> candidates: torchvision's rules, over all classes at once."""
        scores = logits.softmax(dim=2)[..., 1:]
        values, index, labels = top_per_class(scores, self.candidates)
        boxes = decode(take(offsets, index), anchors[index], self.scale)
        return {"boxes": boxes, "scores": values, "labels": labels}
