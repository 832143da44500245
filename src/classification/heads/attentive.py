"""Attentive pooling: a learned query looks at all tokens of the last layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .base import ClassificationHead, Features, Tokens


class AttentiveHead(ClassificationHead):
    """The attentive probe: cross-attention of one query over class and patch tokens, an MLP, and
    a linear classifier (https://arxiv.org/abs/2202.03026, https://arxiv.org/abs/2404.08471)."""

    def __init__(self, dims: Sequence[int], num_classes: int, layers: int) -> None:
        super().__init__()
        width = dims[-1]
        heads = next(n for n in (12, 8, 6, 4, 2, 1) if width % n == 0)
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.trunc_normal_(self.query, std=0.02)
        self.look = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.final = nn.LayerNorm(width)
        self.classify = nn.Linear(width, num_classes)

    lower_too = ("query",)  # see ``engine.precision.lower_weights``

    @property
    def reads(self) -> str:
        return "all tokens"

    def gather(self, tokens: Tokens) -> Features:
        patches, token = tokens[-1]
        return {"tokens": torch.cat([token[:, None], patches.flatten(2).transpose(1, 2)], dim=1)}

    def forward(self, features: Features) -> Tensor:
        tokens = features["tokens"]
        query = self.query.expand(len(tokens), -1, -1)
        seen = self.look(query, tokens, tokens, need_weights=False)[0][:, 0]
        return self.classify(self.final(seen + self.mlp(self.norm(seen))))
