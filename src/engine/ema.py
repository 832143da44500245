"""The moving average of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .distributed import full_tensor, local_tensor, shard_like


class MovingAverage:
    """Exponential moving average of the trainable parameters, and of the float buffers that
    checkpoints keep: statistics of a batch norm that belong to the averaged weights before them.

    Under FSDP each process averages its shard. The decay starts low, min(decay, (1 + t) /
    (10 + t)), so that the random start is soon forgotten (as in TensorFlow's
    ExponentialMovingAverage).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        kept = model.state_dict()
        self.tensors: dict[str, Tensor] = {
            **{n: p for n, p in model.named_parameters() if p.requires_grad},
            **{n: b for n, b in model.named_buffers() if n in kept and b.is_floating_point()},
        }
        self.average = {n: local_tensor(t.detach()).clone() for n, t in self.tensors.items()}

    def _current(self) -> list[Tensor]:
        return [local_tensor(t.detach()) for t in self.tensors.values()]

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
            return {n: full_tensor(t.detach()).cpu().clone() for n, t in self.tensors.items()}

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from ``state()`` (collective under FSDP); names may be left out."""
        for name, tensor in self.tensors.items():
            if name in state:
                self.average[name].copy_(local_tensor(shard_like(state[name], tensor.detach())))
