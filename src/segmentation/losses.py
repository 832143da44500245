"""Losses of pixels: cross-entropy, and with it Dice or Lovász on request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.structures import IGNORE
from ..engine.host import present

Extra = Literal["ce", "ce+dice", "ce+lovasz"]


class PixelLoss(nn.Module):
    """(logits [B, C, H, W], masks uint8 [B, H, W]) -> {"ce": ..., "dice" or "lovasz": ...}.

    Pixels with IGNORE count for nothing; a batch without a labelled pixel has a loss of 0.
    weights: one for each class, for the cross-entropy (the others weigh classes alike already).
    """

    weights: Tensor | None

    def __init__(self, kind: Extra = "ce", weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.kind: Extra = kind
        tensor = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.register_buffer("weights", tensor, persistent=False)

    def forward(self, logits: Tensor, masks: Tensor) -> dict[str, Tensor]:
        logits, masks = logits.float(), masks.long()
        terms = {"ce": cross_entropy(logits, masks, self.weights)}
        if self.kind == "ce+dice":
            terms["dice"] = dice(logits, masks)
        elif self.kind == "ce+lovasz":
            terms["lovasz"] = lovasz(logits, masks)
        return terms


def cross_entropy(logits: Tensor, masks: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over the labelled pixels (weighted by their classes); 0 when there is none."""
    total = F.cross_entropy(logits, masks, weights, ignore_index=IGNORE, reduction="sum")
    known = masks != IGNORE
    if weights is None:
        return total / known.sum().clamp(min=1)
    return total / weights[masks.where(known, 0)].where(known, 0).sum().clamp(min=1e-9)


def dice(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - Dice of the probabilities, mean over the classes that the batch has
    (https://arxiv.org/abs/1606.04797)."""
    known = masks != IGNORE
    classes = torch.arange(logits.shape[1], device=masks.device)[:, None, None]
    truth = masks[:, None] == classes  # a byte a pixel and class; IGNORE is no class
    probabilities = logits.softmax(1) * known[:, None]
    shared = (probabilities * truth).sum((0, 2, 3))
    pixels = truth.sum((0, 2, 3))
    total = probabilities.sum((0, 2, 3)) + pixels
    present = pixels > 0
    loss = 1 - (2 * shared + 1) / (total + 1)
    return (loss * present).sum() / present.sum().clamp(min=1)


def lovasz(logits: Tensor, masks: Tensor) -> Tensor:
    """Lovász-Softmax, the convex surrogate of IoU, mean over the classes that the batch has
    (https://arxiv.org/abs/1705.08790)."""
    known = (masks != IGNORE).flatten()
    probabilities, truth = logits.softmax(1).movedim(1, -1).flatten(0, -2), masks.flatten()
    losses = []
    # Which classes there are is read off the device: to sort those that are not would cost more.
    for index in present(truth[None], logits.shape[1]).unbind(1):
        foreground = (truth == index).float()
        errors = (foreground - probabilities.index_select(1, index).squeeze(1)).abs()
        order = errors.detach().where(known, -1).argsort(descending=True)  # unknown ones last
        errors = errors.where(known, 0)[order]
        losses.append(errors @ _lovasz_gradient(foreground[order]))
    return torch.stack(losses).mean() if losses else logits.sum() * 0


def _lovasz_gradient(truth: Tensor) -> Tensor:
    """Gradient of the Lovász extension of 1 - IoU; truth [P] of 0 and 1, by falling error."""
    total = truth.sum()
    shared = total - truth.cumsum(0)
    union = total + (1 - truth).cumsum(0)
    jaccard = 1 - shared / union
    return torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
