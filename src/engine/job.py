"""What a task hands to the training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .history import Hook
from .optim import ParameterGroup
from .settings import TrainingOptions


class Loader(Protocol):
    """A DataLoader of batches that have ``to(device)`` and ``images`` [B, ...]; this process's
    share of each global batch, the same number of batches on every process."""

    def set_epoch(self, epoch: int) -> None:
        """Shuffle for an epoch, counted from 0."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


def model_loss(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    """``Job.loss`` of a model that answers losses for (images, targets)."""
    return model(batch.image_list(), batch.targets)


class StepHook(Protocol):
    """Told of every optimizer step (counted from 0 over the whole run), on every process."""

    def before(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Before the forward pass: set what the step is to use, e.g. learning rates."""

    def after(self, step: int) -> None:
        """When the step has been applied."""


@dataclass
class Job:
    """What ``loop.fit`` is to do.

    loss: (the wrapped model in train mode, a batch on the device) -> scalar terms; their sum is
    minimised. It calls the model once, through its ``forward``, as DDP wants it.
    validate: (the plain model in eval mode, no gradients, under autocast) -> metrics; called on
    every process, the main one's result counts (gather with ``distributed.gather_objects``).
    best_metric: higher is better; without ``validate`` the least training loss counts.
    describe: the fields of a checkpoint beside the weights (task, head, backbone, image_size,
    resize, classes, config). hooks: called on the main process after each epoch, when the
    checkpoints are written. step_hooks: called at each optimizer step; given some, these set the
    learning rates in place of the options' schedule. clip_apart: ``--clip`` is for the parameters
    of each label (up to its first dot) by themselves, not for all together. guarded: a step that
    is not finite is left out, and three in a row end the run (see nonfinite). head_only: leave a
    frozen backbone out of the checkpoints (adapters on it stay). hold: epochs in which what is
    trained of the backbone is frozen still.
    """

    options: TrainingOptions
    run_dir: Path
    model: nn.Module
    train_loader: Loader
    loss: Callable[[nn.Module, Any], dict[str, Tensor]]
    best_metric: str
    describe: dict[str, Any]
    validate: Callable[[nn.Module], dict[str, float] | None] | None = None
    eval_every: int = 1
    parameter_groups: list[ParameterGroup] | None = None
    hooks: list[Hook] = field(default_factory=list)
    step_hooks: list[StepHook] = field(default_factory=list)
    clip_apart: bool = False
    guarded: bool = False
    head_only: bool = False
    hold: int = 0
