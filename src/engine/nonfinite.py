"""Steps whose loss or gradient is not finite: left out, and after three in a row the end."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .checkpoint import plain
from .distributed import any_rank, rank
from .saving import Position

log = logging.getLogger(__name__)

LIMIT = 3  # bad steps in a row that end a run


class Guard:
    """Looks at every step before it is applied (which waits for the device each time)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.in_a_row = 0
        self.what = ""

    def bad(self, terms: dict[str, Tensor], device: torch.device) -> bool:
        """Whether a term of a batch is not finite on any process (collective)."""
        names = [name for name, term in terms.items() if not torch.isfinite(term).all()]
        if names:
            self.what = "loss " + ", ".join(names)
        return any_rank(bool(names), device)

    def note(self, good: bool, batch: Any, at: Position) -> bool:
        """Count a step (``at`` stands behind it); True when it was a bad one too many, whose batch
        is then kept."""
        if good:
            self.in_a_row, self.what = 0, ""
            return False
        self.in_a_row += 1
        log.warning(
            "step left out: %s not finite (batch %d of epoch %d)",
            self.what or "another process's loss",
            at.batch,
            at.epoch + 1,
        )
        if self.in_a_row < LIMIT:
            return False
        self.keep(batch, at)
        return True

    def path(self) -> Path:
        """Where this process keeps the batch."""
        return self.folder / f"bad_batch_{rank()}.pth"

    def keep(self, batch: Any, at: Position) -> None:
        """Write the batch and its place (from 0), as plain tensors and numbers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        fields = {name: value for name, value in vars(batch).items() if not name.startswith("_")}
        place = {"epoch": at.epoch, "batch": at.batch - 1, "rank": rank(), "what": self.what}
        torch.save({**place, "fields": plain(fields)}, self.path())

    def words(self) -> str:
        """Why the run ends."""
        return (
            f"{LIMIT} steps in a row were not finite ({self.what or 'on another process'}); none "
            f"of them was applied. last_model.pth has the last good weights, {self.path()} the "
            "batch. Try a lower --lr, a longer warm-up, a smaller --clip, or --precision 32, with "
            "--resume"
        )
