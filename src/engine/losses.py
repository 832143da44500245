"""The losses of an epoch, without waiting for the device at each batch."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from ..core.errors import UserError
from .saving import Position

READ_BATCHES = 100  # losses are read off the device this often, or each second


class EpochLosses:
    """The loss terms of an epoch, left on the device until they are read."""

    def __init__(self, at: Position) -> None:
        self.at = at  # its batch and sums are kept up to date by ``read``
        self.names: list[str] = []
        self.unread: list[Tensor] = []
        self.read_at = time.monotonic()

    def add(self, terms: dict[str, Tensor]) -> None:
        """A batch's terms."""
        self.names = self.names or sorted(terms)
        self.unread.append(torch.stack([terms[name].detach().float() for name in self.names]))

    def leave_out(self) -> None:
        """Count a batch whose step was not applied."""
        self.read()
        self.at.batch += 1
        self.at.left_out += 1

    def due(self) -> bool:
        """Whether it is time to wait for the device and read."""
        return len(self.unread) >= READ_BATCHES or time.monotonic() - self.read_at > 1

    def read(self) -> None:
        """Add what is unread to the sums; UserError when a loss is not finite."""
        if not self.unread:
            return
        values = torch.stack(self.unread).double().cpu()  # [batches, terms]
        finite = torch.isfinite(values)
        if not finite.all():
            row = int((~finite).any(dim=1).nonzero()[0])
            bad = [name for name, good in zip(self.names, finite[row].tolist()) if not good]
            raise UserError(
                f"the loss is no longer finite: {', '.join(bad)} at batch "
                f"{self.at.batch + row + 1} of epoch {self.at.epoch + 1}. Try a lower --lr, "
                "--clip 1, --warmup-epochs 1, or --precision 32; with --resume these go on from "
                "the last good epoch"
            )
        for name, value in zip(self.names, values.sum(dim=0).tolist()):
            self.at.sums[name] = self.at.sums.get(name, 0.0) + value
        self.at.batch += len(values)
        self.unread.clear()
        self.read_at = time.monotonic()

    def means(self) -> dict[str, float]:
        """``loss`` and, when there are several terms, ``loss_<term>``: means over the batches."""
        taken = max(1, self.at.batch - self.at.left_out)
        means = {f"loss_{name}": value / taken for name, value in self.at.sums.items()}
        return {"loss": sum(means.values()), **(means if len(means) > 1 else {})}
