"""What all classification heads have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# (patch map [B, C, h, w], class token [B, C]) of a backbone's last layers, shallow to deep
Tokens = Sequence[tuple[Tensor, Tensor]]
Features = dict[str, Tensor]


class ClassificationHead(nn.Module):
    """From the tokens of a backbone's last ``layers`` layers to logits [B, C].

    ``gather`` takes what the head needs of them; it has no parameters, so that with a frozen
    backbone its answer may be kept (``src.features.cache``). ``forward`` makes logits of it.
    """

    layers = 1

    @property
    def reads(self) -> str:
        """A word on what ``gather`` takes: heads of the same word can share kept features."""
        return "class token"

    def gather(self, tokens: Tokens) -> Features:
        """What the head reads, by name: [B, ...] each."""
        raise NotImplementedError


class FittedHead(ClassificationHead):
    """A head without gradient steps: ``fit`` makes it in one go from frozen features."""

    float32_weights = True  # see ``engine.precision.lower_weights``

    def gather(self, tokens: Tokens) -> Features:
        """The last class token."""
        return {"vector": tokens[-1][1]}

    def fit(self, vectors: Tensor, targets: Tensor) -> None:
        """vectors: float32 [N, D]; targets: int64 [N] classes, or float32 [N, C] of 0 and 1."""
        raise NotImplementedError


def joined(tokens: Tokens, pooled: bool) -> Tensor:
    """The class tokens of all layers, and (pooled) the mean of the last one's patches: [B, D]."""
    parts = [token for _, token in tokens]
    if pooled:
        parts.append(tokens[-1][0].mean(dim=(-2, -1)))
    return torch.cat(parts, dim=1)
