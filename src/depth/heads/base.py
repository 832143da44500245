"""What all depth heads have in common: depth as a mean over bins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ...engine.precision import exact

_FLOOR = 0.1  # of a bin's share before they are made to sum to 1 (AdaBins, Meta's evaluation)


@dataclass(frozen=True)
class Range:
    """Depths that a head can answer, in metres, and in how many bins; norm: see ``Bins``."""

    low: float = 0.001
    high: float = 10.0
    bins: int = 256
    norm: Literal["linear", "softmax"] = "linear"


class Bins(nn.Module):
    """Scores of bins [B, bins, h, w] -> depth [B, 1, h, w] in metres: the mean of evenly spaced
    depths, weighted by the scores' shares.

    norm: linear = ReLU, 0.1 and division by the sum, as Meta evaluates (dinov2/eval/depth, after
    https://arxiv.org/abs/2011.14141); softmax. Whatever the scores, the depth is in the range.
    """

    depths: Tensor

    def __init__(self, span: Range) -> None:
        super().__init__()
        self.norm = span.norm
        depths = torch.linspace(span.low, span.high, span.bins)
        self.register_buffer("depths", depths, persistent=False)

    def forward(self, scores: Tensor) -> Tensor:
        scores = scores.float()
        if self.norm == "softmax":
            shares = scores.softmax(dim=1)
        else:
            shares = scores.relu() + _FLOOR
            shares = shares / shares.sum(dim=1, keepdim=True)
        with exact(shares.device):  # in bf16 ten metres would be 3 cm off
            return torch.einsum("bkhw,k->bhw", shares, self.depths)[:, None]


class DepthHead(nn.Module):
    """Feature maps {name: [B, c, h, w]} -> depth [B, 1, h', w'] in metres, at a stride of its own.

    class_token: whether the maps come with the class token behind each cell's channels; norm: and
    with the backbone's final norm.
    """

    class_token = False
    norm = True
