"""What turns a teacher's logits into targets: Sinkhorn-Knopp or a softmax about a moving centre."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..engine.distributed import mean_over_ranks, several


def _logsumexp_over_samples(logits: Tensor) -> Tensor:
    """log sum exp over dimension 0 of every process's [b, K] -> [1, K]."""
    top = logits.amax(dim=0, keepdim=True)
    if several():
        dist.all_reduce(top, op=dist.ReduceOp.MAX)
    total = (logits - top).exp().sum(dim=0, keepdim=True)
    if several():
        dist.all_reduce(total)
    return total.log() + top


@torch.no_grad()
def sinkhorn_knopp(logits: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """Targets [b, K] of this process's b samples: each sums to 1, and over the samples of all
    processes each prototype is used about equally often (SwAV, https://arxiv.org/abs/2006.09882).

    logits: [b, K], b >= 1, of any size on each process. In the log domain, because exp overflows
    float32 where logit / temperature is above 88; the constants of the usual form cancel.
    """
    scores = logits.float() / temperature
    for _ in range(iterations):
        scores = scores - _logsumexp_over_samples(scores)
        scores = scores - scores.logsumexp(dim=1, keepdim=True)
    return scores.exp()


class Centre(nn.Module):
    """DINO's centring (https://arxiv.org/abs/2104.14294): softmax about a moving mean of logits."""

    centre: Tensor

    def __init__(self, prototypes: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("centre", torch.zeros(1, prototypes))

    @torch.no_grad()
    def targets(self, logits: Tensor, temperature: float) -> Tensor:
        """[b, K] -> targets [b, K]; each sums to 1."""
        return ((logits.float() - self.centre) / temperature).softmax(dim=-1)

    @torch.no_grad()
    def update(self, logits: Tensor) -> None:
        """Take in the logits [b, K] of a step (of all processes)."""
        mean = mean_over_ranks(logits.float().mean(dim=0, keepdim=True))
        self.centre.lerp_(mean, 1 - self.momentum)
