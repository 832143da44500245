"""Codes of boxes and losses of pairs are torchvision's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, BoxLinearCoder
from torchvision.ops import generalized_box_iou_loss

from src.detection.heads.boxes import decode, decode_sides, encode, encode_sides, giou_loss

WEIGHTS = [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)]


def random_pairs(seed: int, count: int = 200) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(2, count, 2, generator=generator) * 300
    size = torch.rand(2, count, 2, generator=generator) ** 3 * 200 + 5
    first, second = torch.cat([corner, corner + size], dim=2)
    return first, second


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weights", WEIGHTS)
def test_codes_are_torchvisions(weights, seed):
    boxes, anchors = random_pairs(seed)
    coder = BoxCoder(weights)
    codes = encode(boxes, anchors, weights)
    torch.testing.assert_close(codes, coder.encode_single(boxes, anchors))
    wild = codes * 3  # sizes that have to be held down as well
    torch.testing.assert_close(
        decode(wild, anchors, weights), coder.decode_single(wild, anchors), rtol=1e-5, atol=1e-3
    )
    torch.testing.assert_close(decode(codes, anchors, weights), boxes, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("seed", range(3))
def test_sides_are_torchvisions(seed):
    boxes, anchors = random_pairs(seed)
    coder = BoxLinearCoder(normalize_by_size=True)
    sides = encode_sides(boxes, anchors)
    torch.testing.assert_close(sides, coder.encode(anchors, boxes))
    torch.testing.assert_close(decode_sides(sides, anchors), coder.decode(sides, anchors))


@pytest.mark.parametrize("seed", range(3))
def test_giou_is_torchvisions_with_its_gradient(seed):
    first, second = random_pairs(seed)
    second[:20] = first[:20]  # equal ones
    first[20:40, 2:] = first[20:40, :2] - 5  # turned inside out, as a wild head may say
    first.requires_grad_()
    theirs, ours = generalized_box_iou_loss(first, second), giou_loss(first, second)
    torch.testing.assert_close(ours[:20], theirs[:20])
    torch.testing.assert_close(ours[40:], theirs[40:])
    (expected,) = torch.autograd.grad(theirs[40:].sum(), first)
    (gradient,) = torch.autograd.grad(ours[40:].sum(), first)
    torch.testing.assert_close(gradient, expected)
    assert torch.isfinite(ours).all()
