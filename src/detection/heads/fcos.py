"""FCOS (https://arxiv.org/abs/1904.01355), anchor-free, on one map or on a pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSRegressionHead

from ...backbones.batching import FeatureMaps
from ...core.structures import DetectionTarget
from .anchors import AnchorGrid
from .boxes import areas, decode_sides, encode_sides, giou_loss
from .dense import DenseDetector
from .matching import BACKGROUND, focal_loss_sums, global_mean_count, matched_targets
from .postprocess import take, top_per_level
from .retinanet import group_norm


class FCOSHead(nn.Module):
    """torchvision's FCOS towers for any number of channels.

    Distances start at 2 strides, not 0: their ReLU would give no gradient to half of them.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.classification_head = FCOSClassificationHead(
            channels, 1, num_classes, norm_layer=group_norm
        )
        self.regression_head = FCOSRegressionHead(channels, 1, norm_layer=group_norm)
        bias = self.regression_head.bbox_reg.bias
        assert bias is not None
        nn.init.constant_(bias, 2.0)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Distances [B, A, 4] in strides, logits [B, A, classes], centreness [B, A]."""
        logits = self.classification_head(maps)
        distances, centreness = self.regression_head(maps)
        return distances.float(), logits.float(), centreness.squeeze(2).float()


def match_points(boxes: Tensor, anchors: Tensor, counts: list[int], radius: float) -> Tensor:
    """Truth of each point (the centre of a cell's square): index into boxes or BACKGROUND.

    A point answers for a box that it lies in, near the box's centre (``radius`` strides), when
    the farthest side is 4 to 8 strides away (no lower limit at the finest level, no upper at
    the coarsest); of several boxes for the smallest.
    """
    if len(boxes) == 0:
        return torch.full((len(anchors),), BACKGROUND, dtype=torch.int64, device=anchors.device)
    points = (anchors[:, :2] + anchors[:, 2:]) / 2
    stride = anchors[:, 2] - anchors[:, 0]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    near = (points[:, None] - centres).abs().amax(dim=2) < radius * stride[:, None]
    sides = torch.cat([points[:, None] - boxes[:, :2], boxes[:, 2:] - points[:, None]], dim=2)
    low, high = stride * 4, stride * 8
    low[: counts[0]] = 0
    high[len(high) - counts[-1] :] = torch.inf
    farthest = sides.amax(dim=2)
    match = near & (sides.amin(dim=2) > 0)
    match &= (farthest > low[:, None]) & (farthest < high[:, None])
    smallest, index = torch.where(match, areas(boxes), torch.inf).min(dim=1)
    return torch.where(smallest < torch.inf, index, BACKGROUND)


class FCOS(DenseDetector):
    """FCOS with centre sampling and centreness."""

    radius = 1.5  # in strides, around the centre of a box

    def assemble(self, strides: list[int]) -> None:
        self.anchors = AnchorGrid([[(float(s), float(s))] for s in strides], strides)
        self.head = FCOSHead(self.neck.channels, self.num_classes - 1)

    def losses(
        self, maps: list[Tensor], batch: FeatureMaps, targets: Sequence[DetectionTarget]
    ) -> dict[str, Tensor]:
        distances, logits, centreness = self.head(maps)
        counts = self.anchors.per_level(maps)
        return self.loss_of(distances, logits, centreness, self.anchors(maps), counts, targets)

    def loss_of(
        self,
        distances: Tensor,
        logits: Tensor,
        centreness: Tensor,
        anchors: Tensor,
        counts: list[int],
        targets: Sequence[DetectionTarget],
    ) -> dict[str, Tensor]:
        """Losses of the head's outputs, by anchors [A, 4]; counts: anchors of each level."""
        matches = [match_points(t["boxes"].float(), anchors, counts, self.radius) for t in targets]
        boxes, labels = matched_targets(targets, matches, anchors)
        found = labels > 0
        count = global_mean_count(found.sum())
        squares = anchors.expand_as(boxes)
        box_loss = giou_loss(decode_sides(distances, squares), boxes)
        true = encode_sides(boxes, squares)
        x, y = true[..., 0::2], true[..., 1::2]
        true_centreness = (
            (x.amin(dim=-1) / x.amax(dim=-1)) * (y.amin(dim=-1) / y.amax(dim=-1))
        ).sqrt()
        centre_loss = F.binary_cross_entropy_with_logits(
            centreness, torch.where(found, true_centreness, 0.0), reduction="none"
        )
        return {
            "classification": focal_loss_sums(logits, labels).sum() / count,
            "bbox_regression": torch.where(found, box_loss, 0.0).sum() / count,
            "bbox_ctrness": torch.where(found, centre_loss, 0.0).sum() / count,
        }

    def detect(self, maps: list[Tensor], padded: tuple[int, int]) -> dict[str, Tensor]:
        distances, logits, centreness = self.head(maps)
        anchors, counts = self.anchors(maps), self.anchors.per_level(maps)
        return self.select(distances, logits, centreness, anchors, counts)

    def select(
        self,
        distances: Tensor,
        logits: Tensor,
        centreness: Tensor,
        anchors: Tensor,
        counts: list[int],
    ) -> dict[str, Tensor]:
        """Head outputs -> candidates; counts: anchors of each level. torchvision's rules."""
        scores = (logits.sigmoid() * centreness.sigmoid().unsqueeze(2)).sqrt()
        values, flat = top_per_level(scores, counts, self.candidates)
        index = torch.div(flat, logits.shape[2], rounding_mode="floor")
        boxes = decode_sides(take(distances, index), anchors[index])
        return {"boxes": boxes, "scores": values, "labels": flat % logits.shape[2] + 1}
