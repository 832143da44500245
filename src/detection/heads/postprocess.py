"""Candidates of dense heads -> detections: the device's half, without a wait, and the host's.

How many detections an image has is only known when NMS is done, and a tensor of that size can
only be made when the host has been told. So the device answers in fixed shapes (the best
candidates, and which of them NMS keeps), and the host cuts them out when they have arrived.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from ...core.structures import Detections
from ...engine.host import upload
from .boxes import overlaps

MOST = 1000  # candidates of an image that NMS looks at, the best ones
ROUNDS = 24  # of NMS on the device: chains of boxes that push one another out are shorter


class Candidates(TypedDict):
    """What a dense head says of an image, best first, in shapes that do not depend on values.

    boxes [K, 4], scores [K] (-1: none), labels [K]; kept: bool [K] after NMS; settled: bool [],
    whether ``kept`` is final (else the host does NMS, as for tensors that are there already).
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    kept: Tensor
    settled: Tensor


def top_per_level(scores: Tensor, counts: Sequence[int], limit: int) -> tuple[Tensor, Tensor]:
    """The best of each level: scores [B, A, C], anchors per level -> scores and flat indices
    (anchor * C + class), both [B, K] with at most ``limit`` of each level."""
    classes = scores.shape[2]
    values, indices, start = [], [], 0
    for level in scores.split(list(counts), dim=1):
        flat = level.flatten(1)
        value, index = flat.topk(min(limit, flat.shape[1]), dim=1)
        values.append(value)
        indices.append(index + start)
        start += level.shape[1] * classes
    return torch.cat(values, dim=1), torch.cat(indices, dim=1)


def top_per_class(scores: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best of each class: scores [B, A, C] -> scores, anchors, labels (from 1), [B, K]."""
    values, anchors = scores.transpose(1, 2).topk(min(limit, scores.shape[1]), dim=2)
    labels = torch.arange(1, scores.shape[2] + 1, device=scores.device)
    labels = labels[None, :, None].expand_as(anchors)
    return values.flatten(1), anchors.flatten(1), labels.flatten(1)


def choose(
    found: dict[str, Tensor], sizes: Sequence[tuple[int, int]], *, score: float, iou: float
) -> list[Candidates]:
    """boxes [B, K, 4], scores [B, K], labels [B, K] -> the ``MOST`` best of each image, and NMS's
    word.

    Scores at or below ``score`` go, boxes are clipped to the image (height, width), boxes
    without area (those in the padding) go. On a GPU NMS within each class follows here, on the
    CPU in ``cut_out``, where it costs less.
    """
    boxes, scores, labels = found["boxes"], found["scores"], found["labels"]
    edges = upload([[w, h, w, h] for h, w in sizes], boxes)
    boxes = torch.minimum(boxes.clamp(min=0), edges[:, None])
    there = (scores > score) & (boxes[..., 2:] > boxes[..., :2]).all(dim=2)
    scores, index = scores.where(there, -1.0).topk(min(MOST, scores.shape[1]), dim=1)
    boxes, labels = take(boxes, index), labels.gather(1, index)
    kept = scores >= 0
    settled = kept.new_zeros(len(kept))
    if boxes.is_cuda:
        kept, settled = suppressed(boxes, labels, kept, iou)
    parts = zip(boxes, scores, labels, kept, settled)
    return [
        {"boxes": b, "scores": s, "labels": c, "kept": k, "settled": done}
        for b, s, c, k, done in parts
    ]


def suppressed(boxes: Tensor, labels: Tensor, there: Tensor, iou: float) -> tuple[Tensor, Tensor]:
    """NMS within each class and image, in a fixed number of steps: boxes [B, K, 4] and labels
    [B, K] best first, there: bool [B, K] -> kept bool [B, K], settled bool [B].

    A box is kept when no kept one before it overlaps it by more than ``iou``. All are judged at
    once, again and again; what no longer changes is the one answer (of greedy NMS).
    """
    shared, union = overlaps(boxes[:, :, None], boxes[:, None])
    rivals = (shared / union > iou) & (labels[:, :, None] == labels[:, None])
    rivals = rivals.tril(-1)  # [B, K, those before it]
    kept = there
    before = kept
    for _ in range(ROUNDS):
        before, kept = kept, there & ~(rivals & kept[:, None]).any(dim=2)
    return kept, (kept == before).all(dim=1)


def nms_within(found: dict[str, Tensor], *, iou: float, limit: int) -> dict[str, Tensor]:
    """boxes [B, K, 4], scores [B, K], labels [B, K] -> the same of the ``limit`` best that NMS
    keeps, best first; score -1: none. In the fixed steps of ``suppressed``, for exported graphs."""
    scores, index = found["scores"].topk(min(MOST, found["scores"].shape[1]), dim=1)
    boxes, labels = take(found["boxes"], index), found["labels"].gather(1, index)
    kept, _ = suppressed(boxes, labels, scores >= 0, iou)
    scores, index = scores.where(kept, -1.0).topk(min(limit, scores.shape[1]), dim=1)
    return {"boxes": take(boxes, index), "scores": scores, "labels": labels.gather(1, index)}


def cut_out(found: Candidates, *, iou: float, limit: int) -> Detections:
    """The host's half: the ``limit`` best detections of an image."""
    boxes, scores, labels = found["boxes"], found["scores"], found["labels"]
    best = found["kept"].nonzero().squeeze(1)
    if not found["settled"]:
        best = (scores >= 0).nonzero().squeeze(1)
        best = best[batched_nms(boxes[best], scores[best], labels[best], iou)]
    best = best[:limit]
    return {"boxes": boxes[best], "scores": scores[best], "labels": labels[best]}


def take(values: Tensor, index: Tensor) -> Tensor:
    """Rows of values [B, A, D] by index [B, K] -> [B, K, D]."""
    return values.gather(1, index.unsqueeze(2).expand(-1, -1, values.shape[2]))
