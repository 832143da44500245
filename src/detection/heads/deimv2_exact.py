"""DEIMv2's boxes in float32, whatever type its layers compute in.

transformers' model knows no mixed precision: under autocast its anchors, the last layer of what
predicts boxes and the sums over the bins would be of bf16, whose numbers in [0.5, 1] lie 2.5 pixels
of 640 apart. The layers before, which take the time, stay in bf16.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...engine.precision import exact


class Float32Linear(nn.Linear):
    """A linear layer that autocast leaves alone."""

    def forward(self, x: Tensor) -> Tensor:
        with exact(x.device):
            return F.linear(x.float(), self.weight, self.bias)


class Integral(nn.Module):
    """The mean distance that bins say: distributions before the softmax [B, Q, 4 (bins + 1)],
    the bins' distances [bins + 1] -> [B, Q, 4]."""

    def forward(self, distributions: Tensor, distances: Tensor) -> Tensor:
        shares = distributions.float().unflatten(2, (4, -1)).softmax(dim=3)
        return (shares * distances).sum(dim=3)


def _anchors(make: Any, shapes: Any, device: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What ``make``, the model's own, says in float32, whatever type its maps are of."""
    return make(shapes, 0.05, device, torch.float32)


def keep_digits(model: Any) -> None:
    """Put the parts above into transformers' Deimv2ForObjectDetection; names and weights stay."""
    decoder = model.model.decoder
    heads = [model.model.enc_bbox_head, decoder.pre_bbox_head, *decoder.bbox_embed]
    for layer in [decoder.query_pos_head.layers[0], *(head.layers[-1] for head in heads)]:
        layer.__class__ = Float32Linear  # in place: layers share weights
    decoder.integral = Integral()
    # transformers 5.8 caches the method itself.
    make = getattr(type(model.model), "_cached_generate_anchors", model.model.generate_anchors)
    model.model.generate_anchors = partial(_anchors, make)
