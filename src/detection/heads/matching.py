"""Which anchor answers for which truth, and the sums that losses are made of.

Everything is done with masks of fixed shape, so that a GPU is never waited for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

from ...core.structures import DetectionTarget
from ...engine.distributed import mean_over_ranks

BACKGROUND, IGNORED = -1, -2


def match_anchors(
    boxes: Tensor, anchors: Tensor, high: float, low: float, *, rescue_ties: bool
) -> Tensor:
    """Truth of each anchor: index into boxes [N, 4], BACKGROUND or IGNORED; int64 [A].

    IoU >= high is a match, < low background, ignored between. Every truth gets the anchor it
    overlaps most: with ``rescue_ties`` as RetinaNet (all anchors that tie, which keep their
    own best truth), else as SSD (one anchor, taken from others). A truth that overlaps no
    anchor (a degenerate box) is left out, where torchvision would match it with background.
    """
    if len(boxes) == 0:
        return torch.full((len(anchors),), BACKGROUND, dtype=torch.int64, device=anchors.device)
    iou = box_iou(boxes, anchors)
    quality, best = iou.max(dim=0)
    matches = torch.where(quality >= high, best, IGNORED)
    matches = torch.where(quality < low, BACKGROUND, matches)
    top, anchor = iou.max(dim=1)
    if rescue_ties:
        rescued = ((iou == top[:, None]) & (top[:, None] > 0)).any(dim=0)
        return torch.where(rescued, best, matches)
    order = torch.arange(len(boxes), device=boxes.device)
    forced = torch.full_like(matches, BACKGROUND)
    forced = forced.scatter_reduce(0, anchor, torch.where(top > 0, order, BACKGROUND), "amax")
    return torch.where(forced >= 0, forced, matches)


def matched_targets(
    targets: Sequence[DetectionTarget], matches: list[Tensor], anchors: Tensor
) -> tuple[Tensor, Tensor]:
    """Truth of each anchor: boxes [B, A, 4] (the anchor itself where there is none) and labels
    int64 [B, A] (0 where there is none)."""
    boxes, labels = [], []
    for target, match in zip(targets, matches):
        if len(target["boxes"]) == 0:
            boxes.append(anchors)
            labels.append(torch.zeros_like(match))
            continue
        found, index = match >= 0, match.clamp(min=0)
        matched = target["boxes"].to(anchors.dtype)[index]
        boxes.append(torch.where(found[:, None], matched, anchors))
        labels.append(torch.where(found, target["labels"][index], 0))
    return torch.stack(boxes), torch.stack(labels)


def global_mean_count(count: Tensor) -> Tensor:
    """A count of this process's foregrounds -> its mean over the processes, 1 where it is 0.

    A sum divided by it, averaged over the processes by DDP, is the sum over all divided by the
    count over all: the same gradients whatever the number of processes.
    """
    mean = mean_over_ranks(count.detach().to(torch.float32))
    return torch.where(mean > 0, mean, torch.ones_like(mean))


def focal_loss_sums(
    logits: Tensor, labels: Tensor, valid: Tensor | None = None, alpha: float = 0.25
) -> Tensor:
    """Sigmoid focal loss (gamma 2), summed for each image: logits [B, A, C] -> [B].

    labels: int64 [B, A], 1..C, 0 = background; valid: bool [B, A], others do not count.
    Equal to torchvision.ops.sigmoid_focal_loss on one-hot targets, without making them: all
    are taken as negatives, then the positives are put right.
    """
    negative = _focal_negative(logits, alpha).sum(dim=2)
    own = logits.gather(2, (labels - 1).clamp(min=0).unsqueeze(2)).squeeze(2)
    positive = alpha * torch.sigmoid(-own).square() * F.softplus(-own)
    correction = positive - _focal_negative(own, alpha)
    total = negative + torch.where(labels > 0, correction, 0.0)
    if valid is not None:
        total = torch.where(valid, total, 0.0)
    return total.sum(dim=1)


def _focal_negative(logits: Tensor, alpha: float) -> Tensor:
    return (1 - alpha) * torch.sigmoid(logits).square() * F.softplus(logits)
