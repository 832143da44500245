"""The moving average of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .distributed import full_tensor, local_tensor, shard_like


class MovingAverage:
    """Exponential moving average of the trainable parameters (buffers are the model's own).

    Under FSDP each process averages its shard. The decay starts low, min(decay, (1 + t) /
    (10 + t)), so that the random start is soon forgotten (as in TensorFlow's
    ExponentialMovingAverage).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.average = {n: local_tensor(p.detach()).clone() for n, p in self.parameters.items()}

    def _current(self) -> list[Tensor]:
        return [local_tensor(p.detach()) for p in self.parameters.values()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimizer step ``step`` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), self._current(), 1 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the model holds the average."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for current, average in zip(self._current(), self.average.values()):
            kept = current.clone()
            current.copy_(average)
            average.copy_(kept)

    def state(self) -> dict[str, Tensor]:
        """The whole average by parameter name, on the CPU (collective under FSDP)."""
        with self.swapped():
            return {n: full_tensor(p.detach()).cpu().clone() for n, p in self.parameters.items()}

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from ``state()`` (collective under FSDP)."""
        for name, parameter in self.parameters.items():
            self.average[name].copy_(local_tensor(shard_like(state[name], parameter.detach())))
