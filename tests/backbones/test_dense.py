"""What models with an answer for each pixel share."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from src.backbones.dense import upsample


@pytest.mark.parametrize("size", [(224, 160), (14, 40), (9, 7)])
def test_upsample_is_bilinear_with_and_without_a_gradient(size):
    x = torch.randn(2, 3, 14, 10)
    expected = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(upsample(x, size), expected)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = upsample(ours, size)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    (found * weights).sum().backward()
    (
        F.interpolate(theirs, size=size, mode="bilinear", align_corners=False) * weights
    ).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)
