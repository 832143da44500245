"""The losses of depth: scale-invariant in the logarithm, and the steps of its map."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

_EPSILON = 0.001  # metres, in logarithms
_SCALE_SHARE = 0.15  # of the mean error squared: 1 would not be scale-invariant at all
STEPS_WEIGHT = 0.5  # of the second loss, as Meta's with DPT


class DepthLoss(nn.Module):
    """(depth [B, 1, H, W], truth [B, H, W], both in metres) -> {"silog": ..., "steps": ...}.

    Pixels whose truth is 0 count for nothing; a batch without a measured pixel has a loss of 0.
    """

    def __init__(self, kind: Literal["silog", "silog+steps"] = "silog") -> None:
        super().__init__()
        self.kind = kind

    def forward(self, depth: Tensor, truth: Tensor) -> dict[str, Tensor]:
        known = truth > 0
        error = (depth[:, 0].float() + _EPSILON).log() - (truth + _EPSILON).log()
        terms = {"silog": silog(error, known)}
        if self.kind == "silog+steps":
            terms["steps"] = STEPS_WEIGHT * steps(error.where(known, 0), known)
        return terms


def silog(error: Tensor, known: Tensor) -> Tensor:
    """sqrt(variance + 0.15 mean^2) of the known log errors [B, H, W]; 0 where none is known.

    https://arxiv.org/abs/1406.2283, weighted as in https://arxiv.org/abs/2011.14141 and Meta's
    evaluation.
    """
    count = known.sum()
    error = error.where(known, 0)
    mean = error.sum() / count.clamp(min=1)
    variance = (error - mean).where(known, 0).square().sum() / count.clamp(min=1)
    return (variance + _SCALE_SHARE * mean**2 + 1e-8).sqrt() * (count > 0)


def steps(error: Tensor, known: Tensor) -> Tensor:
    """How much log errors [B, H, W] differ between near pixels, at four scales: it sharpens edges
    (MegaDepth, https://arxiv.org/abs/1804.00607)."""
    total = error.new_zeros(())
    for stride in (1, 2, 4, 6):
        part, there = error[:, ::stride, ::stride], known[:, ::stride, ::stride]
        down = (part[:, 2:] - part[:, :-2]).abs() * (there[:, 2:] & there[:, :-2])
        across = (part[:, :, 2:] - part[:, :, :-2]).abs() * (there[:, :, 2:] & there[:, :, :-2])
        total = total + (down.sum() + across.sum()) / torch.clamp(there.sum(), min=1)
    return total
