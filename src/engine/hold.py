"""A backbone that is to be trained, but not from the first epoch on."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..core.errors import UserError
from .settings import TrainingOptions


class Hold:
    """Keeps what is trained of ``model.backbone`` frozen for the first ``epochs`` epochs.

    The optimizer knows its parameters from the start: without a gradient it passes them over, and
    their state begins with the first step that they take. UserError for a run that would end
    before, and under FSDP, whose shards are made for what is trained.
    """

    def __init__(self, model: nn.Module, epochs: int, options: TrainingOptions) -> None:
        self.epochs, self.held = epochs, False
        backbone: Any = getattr(model, "backbone", None)
        self.backbone = backbone
        if not epochs:
            return
        if epochs >= options.epochs:
            raise UserError(
                f"--unfreeze-epoch {epochs + 1} must be one of the --epochs {options.epochs}"
            )
        if options.strategy == "fsdp":
            raise UserError("--unfreeze-epoch does not go with --strategy fsdp; use ddp")
        self.parameters = [p for p in backbone.parameters() if p.requires_grad]

    def set(self, epoch: int) -> bool:
        """Freeze or let go for an epoch (from 0); whether that is a change."""
        held = epoch < self.epochs
        if held == self.held:
            return False
        self.held = self.backbone.frozen = held
        for parameter in self.parameters:
            parameter.requires_grad_(not held)
        return True
