"""Candidates of dense heads -> detections: batched over classes and images, one NMS an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from ...core.structures import Detections


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


def suppress(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    sizes: Sequence[tuple[int, int]],
    *,
    score: float,
    iou: float,
    limit: int,
) -> list[Detections]:
    """Candidates [B, K, 4], [B, K], [B, K] -> detections of each image, best first.

    Scores at or below ``score`` go, boxes are clipped to the image (height, width), boxes
    without area (those in the padding) go, then NMS within each class, on the device.
    """
    detections: list[Detections] = []
    for box, value, label, size in zip(boxes, scores, labels, sizes):
        box = clip_boxes_to_image(box, size)
        keep = (value > score) & (box[:, 2:] > box[:, :2]).all(dim=1)
        box, value, label = box[keep], value[keep], label[keep]
        best = batched_nms(box, value, label, iou)[:limit]
        detections.append({"boxes": box[best], "scores": value[best], "labels": label[best]})
    return detections


def take(values: Tensor, index: Tensor) -> Tensor:
    """Rows of values [B, A, D] by index [B, K] -> [B, K, D]."""
    return values.gather(1, index.unsqueeze(2).expand(-1, -1, values.shape[2]))
