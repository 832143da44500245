"""Boxes as a head says them: relative to anchors, and back.

The same figures as torchvision's ``BoxCoder`` and ``BoxLinearCoder``, which upload constants to
the device at every call.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Weights = tuple[float, float, float, float]
_LARGEST = math.log(1000 / 16)  # of a size's logarithm, so that exp() stays finite


def _centres(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """xyxy [..., 4] -> centres and sizes, [..., 2] each."""
    sizes = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * sizes, sizes


def encode(boxes: Tensor, anchors: Tensor, weights: Weights) -> Tensor:
    """Boxes [..., 4] by anchors [..., 4], both xyxy -> codes [..., 4]: weighted differences of the
    centres in sizes of the anchor, and logarithms of the sizes' ratios
    (https://arxiv.org/abs/1311.2524)."""
    x, y, width, height = weights
    (centres, sizes), (own, own_sizes) = _centres(boxes), _centres(anchors)
    moved, grown = (centres - own) / own_sizes, (sizes / own_sizes).log()
    parts = (x * moved[..., 0], y * moved[..., 1], width * grown[..., 0], height * grown[..., 1])
    return torch.stack(parts, dim=-1)


def decode(codes: Tensor, anchors: Tensor, weights: Weights) -> Tensor:
    """The boxes that ``encode`` made the codes of."""
    x, y, width, height = weights
    own, own_sizes = _centres(anchors)
    moved = torch.stack([codes[..., 0] / x, codes[..., 1] / y], dim=-1)
    grown = torch.stack([codes[..., 2] / width, codes[..., 3] / height], dim=-1)
    centres = moved * own_sizes + own
    half = 0.5 * (grown.clamp(max=_LARGEST).exp() * own_sizes)
    return torch.cat([centres - half, centres + half], dim=-1)


def encode_sides(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Distances from the anchors' centres to the boxes' left, top, right and bottom, in sizes of
    the anchor [..., 4]."""
    centres, sizes = _centres(anchors)
    sides = torch.cat([centres - boxes[..., :2], boxes[..., 2:] - centres], dim=-1)
    return sides / torch.cat([sizes, sizes], dim=-1)


def decode_sides(sides: Tensor, anchors: Tensor) -> Tensor:
    """The boxes that ``encode_sides`` made the distances of."""
    centres, sizes = _centres(anchors)
    return torch.cat([centres - sides[..., :2] * sizes, centres + sides[..., 2:] * sizes], dim=-1)


def areas(boxes: Tensor) -> Tensor:
    """Pixels of boxes [..., 4] -> [...]."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def overlaps(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Area that boxes [..., 4] have in common, and that they cover together; both [...]."""
    corner = torch.minimum(first[..., 2:], second[..., 2:])
    sides = (corner - torch.maximum(first[..., :2], second[..., :2])).clamp(min=0)
    shared = sides[..., 0] * sides[..., 1]
    return shared, areas(first) + areas(second) - shared


def giou_loss(first: Tensor, second: Tensor, tiny: float = 1e-7) -> Tensor:
    """1 - generalised IoU (https://arxiv.org/abs/1902.09630) of boxes [..., 4], pair by pair.

    As torchvision's ``generalized_box_iou_loss``, which indexes by a mask: its size would have to
    be known on the host.
    """
    shared, union = overlaps(first, second)
    low = torch.minimum(first[..., :2], second[..., :2])
    span = torch.maximum(first[..., 2:], second[..., 2:]) - low
    hull = span[..., 0] * span[..., 1]
    return 1 - shared / (union + tiny) + (hull - union) / (hull + tiny)
