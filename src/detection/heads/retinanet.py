"""RetinaNet (https://arxiv.org/abs/1708.02002) on one map or on a pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.retinanet import RetinaNetHead

from ...backbones.batching import FeatureMaps
from ...core.structures import DetectionTarget
from .anchors import AnchorGrid, cell_shapes
from .boxes import decode, encode
from .dense import DenseDetector
from .matching import IGNORED, focal_loss_sums, match_anchors, matched_targets
from .postprocess import take, top_per_level


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 32 groups, or fewer so that each has 8 channels (a map may be one cell)."""
    most = max(1, min(32, channels // 8))
    return nn.GroupNorm(max(g for g in range(1, most + 1) if channels % g == 0), channels)


def retinanet_anchors(strides: list[int]) -> AnchorGrid:
    """Sizes of 4 strides x (1, 2^(1/3), 2^(2/3)) at each level, or 32 to 512 pixels on one map;
    ratios 1/2, 1, 2."""
    if len(strides) == 1:
        sizes = [[32.0 * 2**i for i in range(5)]]
    else:
        sizes = [[4 * stride * 2 ** (i / 3) for i in range(3)] for stride in strides]
    return AnchorGrid([cell_shapes(level, [0.5, 1.0, 2.0]) for level in sizes], strides)


class RetinaNet(DenseDetector):
    """RetinaNet: torchvision's head with GroupNorm, one logit for each class but background."""

    score = 0.01
    iou = (0.5, 0.4)  # of foreground at least, of background below
    scale = (1.0, 1.0, 1.0, 1.0)  # of the codes of boxes

    def assemble(self, strides: list[int]) -> None:
        self.anchors = retinanet_anchors(strides)
        channels, per_cell = self.neck.channels, self.anchors.per_cell()[0]
        self.head = RetinaNetHead(channels, per_cell, self.num_classes - 1, norm_layer=group_norm)

    def losses(
        self, maps: list[Tensor], batch: FeatureMaps, targets: Sequence[DetectionTarget]
    ) -> dict[str, Tensor]:
        outputs = self.head(maps)
        return self.loss_of(
            outputs["bbox_regression"].float(),
            outputs["cls_logits"].float(),
            self.anchors(maps),
            targets,
        )

    def loss_of(
        self, offsets: Tensor, logits: Tensor, anchors: Tensor, targets: Sequence[DetectionTarget]
    ) -> dict[str, Tensor]:
        """Losses of head outputs [B, A, 4] and [B, A, classes - 1], by anchors [A, 4].

        As in torchvision each image's sums are divided by its own foregrounds, so that equal
        shares of a batch on several processes give the same gradients.
        """
        high, low = self.iou
        matches = [
            match_anchors(t["boxes"].float(), anchors, high, low, rescue_ties=True) for t in targets
        ]
        boxes, labels = matched_targets(targets, matches, anchors)
        found = labels > 0
        count = found.sum(dim=1).clamp(min=1)
        codes = encode(boxes, anchors, self.scale)
        box_loss = F.l1_loss(offsets, codes, reduction="none").sum(dim=2)
        box_sums = torch.where(found, box_loss, 0.0).sum(dim=1)
        class_sums = focal_loss_sums(logits, labels, torch.stack(matches) != IGNORED)
        return {
            "classification": (class_sums / count).mean(),
            "bbox_regression": (box_sums / count).mean(),
        }

    def detect(self, maps: list[Tensor], padded: tuple[int, int]) -> dict[str, Tensor]:
        outputs = self.head(maps)
        return self.select(
            outputs["bbox_regression"].float(),
            outputs["cls_logits"].float(),
            self.anchors(maps),
            self.anchors.per_level(maps),
        )

    def select(
        self,
        offsets: Tensor,
        logits: Tensor,
        anchors: Tensor,
        counts: list[int],
    ) -> dict[str, Tensor]:
        """Head outputs -> candidates; counts: anchors of each level. torchvision's rules."""
        values, flat = top_per_level(logits, counts, self.candidates)
        index = torch.div(flat, logits.shape[2], rounding_mode="floor")
        boxes = decode(take(offsets, index), anchors[index], self.scale)
        labels = flat % logits.shape[2] + 1
        return {"boxes": boxes, "scores": values.sigmoid(), "labels": labels}
