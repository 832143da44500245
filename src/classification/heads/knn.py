"""Weighted nearest neighbours over frozen class tokens: nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...engine.precision import exact
from .base import Features, FittedHead

TEMPERATURE = 0.07
_BLOCK = 256  # images compared with the whole bank at once


class KnnHead(FittedHead):
    """DINO's k-NN protocol (https://arxiv.org/abs/2104.14294): cosine similarity, each of the k
    nearest votes with exp(similarity / 0.07). Logits are those of the shares of the votes.

    bank: unit vectors [N, D]; marks: int64 [N] classes, or float32 [N, C] (multi-label).
    """

    bank: Tensor
    marks: Tensor
    k: Tensor

    def __init__(self, dims: Sequence[int], num_classes: int, layers: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer("bank", torch.zeros(0, dims[-1]))
        self.register_buffer("marks", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("k", torch.tensor(20))
        self._count: int | None = 20  # k, where the host knows it

    def fit(self, vectors: Tensor, targets: Tensor) -> None:
        self.bank, self.marks = F.normalize(vectors.float(), dim=1), targets

    def choose(self, k: int) -> None:
        """Let so many neighbours vote."""
        self.k.fill_(k)
        self._count = k

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._count = None

    def reserve(self, bank: Sequence[int], marks: Tensor) -> None:
        """Room for a checkpoint's bank of this shape and marks like these."""
        self.bank, self.marks = torch.zeros(*bank), torch.zeros_like(marks)

    def forward(self, features: Features) -> Tensor:
        if self._count is None:
            self._count = int(self.k)
        parts = [self.votes(block, self._count) for block in features["vector"].split(_BLOCK)]
        shares = torch.cat(parts).clamp(1e-6, 1 - 1e-6)
        return shares.log() if self.marks.ndim == 1 else shares.logit()

    def votes(self, vectors: Tensor, k: int) -> Tensor:
        """Of the k nearest's votes, each class's share: [B, D] -> [B, C]."""
        with exact(vectors.device):  # in bf16 the nearest would tie
            similarity = F.normalize(vectors.float(), dim=1) @ self.bank.T
        near, where = similarity.topk(min(k, len(self.bank)), dim=1)
        votes = ((near - near[:, :1]) / TEMPERATURE).exp()
        votes = votes / votes.sum(dim=1, keepdim=True)
        if self.marks.ndim == 2:
            return (votes[:, :, None] * self.marks[where]).sum(dim=1)
        empty = votes.new_zeros(len(votes), self.num_classes)
        return empty.scatter_add(1, self.marks[where], votes)
