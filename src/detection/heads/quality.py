"""Adaptive assignment and losses of quality, for heads whose scores say how well a box fits.

Everything is done with masks of fixed shape, so that a GPU is never waited for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

from ...core.structures import DetectionTarget
from .boxes import giou_loss, overlaps
from .matching import BACKGROUND, global_mean_count, matched_targets

BOX_WEIGHT = 1.0  # of the box loss beside the class loss: with 2 (ATSS) scores are learnt late


def match_adaptive(
    boxes: Tensor, anchors: Tensor, counts: Sequence[int], nearest: int = 9
) -> Tensor:
    """Truth of each anchor: index into boxes [N, 4] or BACKGROUND; int64 [A].

    ATSS (https://arxiv.org/abs/1912.02424, algorithm 1): a truth's candidates are the ``nearest``
    anchors by centre of every level (counts: anchors of each); those whose IoU is at least
    mean + standard deviation of the candidates' IoUs, and whose centre lies inside, answer for
    it; an anchor of several truths for the one it overlaps most. Beyond the paper, the best
    candidate answers even when its centre lies outside: a box thinner than a cell is not lost.
    """
    if len(boxes) == 0:
        return torch.full((len(anchors),), BACKGROUND, dtype=torch.int64, device=anchors.device)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    distance = (centres[:, None] - middles).square().sum(dim=2)  # [A, N]
    chosen, start = [], 0
    for level in distance.split(list(counts)):
        found = level.topk(min(nearest, len(level)), dim=0, largest=False).indices
        chosen.append(found + start)
        start += len(level)
    candidates = torch.cat(chosen)  # [K, N]
    overlaps = box_iou(anchors, boxes)
    overlap = overlaps.gather(0, candidates)
    limit = overlap.mean(dim=0) + overlap.std(dim=0, correction=min(1, len(overlap) - 1))
    point = centres[candidates]  # [K, N, 2]
    inside = ((point > boxes[:, :2]) & (point < boxes[:, 2:])).all(dim=2)
    good = (overlap >= limit) & inside
    best = torch.arange(len(overlap), device=boxes.device)[:, None] == overlap.argmax(dim=0)
    good |= best & (overlap > 0)
    quality = torch.full_like(overlaps, -1.0)
    quality.scatter_(0, candidates, torch.where(good, overlap, -1.0))
    most, index = quality.max(dim=1)
    return torch.where(most >= 0, index, BACKGROUND)


def varifocal_sums(logits: Tensor, labels: Tensor, quality: Tensor, alpha: float = 0.75) -> Tensor:
    """Varifocal loss (https://arxiv.org/abs/2008.13367, equation 2, gamma 2), summed for each
    image: logits [B, A, C], labels int64 [B, A] (1..C, 0 = background), quality [B, A] in 0..1,
    what the score of its label should be -> [B].

    Quality focal loss, tried beside it, hardly moves at first: its foregrounds weigh
    (quality - score)^2, a third of what the box loss does.
    """
    classes = torch.arange(1, logits.shape[2] + 1, device=logits.device)
    wanted = torch.where(labels.unsqueeze(2) == classes, quality.unsqueeze(2), 0.0)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    weight = torch.where(wanted > 0, wanted, alpha * logits.sigmoid().square())
    return (weight * entropy).sum(dim=(1, 2))


def quality_losses(
    predicted: Tensor,
    logits: Tensor,
    anchors: Tensor,
    matches: list[Tensor],
    targets: Sequence[DetectionTarget],
) -> dict[str, Tensor]:
    """Losses of boxes [B, A, 4] and logits [B, A, C] by matches, int64 [A] for each image.

    Boxes by generalised IoU, scores by the IoU that their box reaches; both divided by the
    foregrounds of all processes.
    """
    boxes, labels = matched_targets(targets, matches, anchors)
    found = labels > 0
    count = global_mean_count(found.sum())
    shared, union = overlaps(predicted.detach(), boxes)
    quality = torch.where(found, shared / (union + 1e-7), 0.0)
    box_loss = torch.where(found, giou_loss(predicted, boxes), 0.0).sum()
    return {
        "classification": varifocal_sums(logits, labels, quality).sum() / count,
        "bbox_regression": BOX_WEIGHT * box_loss / count,
    }
