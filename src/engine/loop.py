"""The training loop of every task, on Lightning Fabric.

Everything random is seeded from (seed, epoch, batch, rank), and the learning rate is a function
of the step, so that a run resumes exactly from weights, optimizer state and a position.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ..core.config import to_yaml
from ..core.errors import UserError
from ..core.files import write_text
from ..core.progress import Progress
from .distributed import (
    any_rank,
    broadcast_buffers,
    build_fabric,
    full_tensor,
    gather_objects,
    is_main,
    rank,
    synchronise_norms,
    whole_rest,
    world,
)
from .ema import MovingAverage
from .history import History, Hook
from .hold import Hold
from .interrupt import StopRequest
from .job import Job, StepHook
from .loggers import start_logger
from .losses import EpochLosses
from .nonfinite import Guard
from .optim import Schedule, build_optimizer, parameter_groups, require_sensible
from .precision import backbone_of, choose_device, choose_type
from .run_folder import CONFIG, LAST, check_run_folder, claim_run_folder
from .saving import DiskSpace, Position, Saver, frozen_fingerprint

log = logging.getLogger(__name__)

STOP_STEPS = 8  # with several processes: agree on Ctrl-C every so many optimizer steps


def fit(job: Job) -> History:
    """Train; write ``best_model.pth``, ``last_model.pth``, ``config.yaml``, ``history.csv`` and
    TensorBoard events to ``job.run_dir``.

    Ctrl-C or SIGTERM: saves at the end of the step and raises KeyboardInterrupt; ``--resume``
    then goes on from that very step. UserError: an earlier run in the folder, no room or right
    to write, a loss that is no longer finite, a checkpoint that does not fit.
    """
    options = job.options
    require_sensible(options)
    fingerprint = frozen_fingerprint(job)
    disk_space = DiskSpace(job, head_only=fingerprint is not None)
    if is_main():
        check_run_folder(
            job.run_dir,
            resume=options.resume,
            overwrite=options.overwrite,
            needed_bytes=disk_space.needed(),
        )
    if len(job.train_loader) == 0:
        raise UserError("there is no batch to train on: fewer training images than processes")
    with StopRequest() as stop:
        return _Run(job, disk_space, fingerprint, stop).train()


def seed_everything(*key: int) -> None:
    """Seed Python, numpy and torch from a tuple of numbers, e.g. (seed, epoch, rank, batch)."""
    mixed = int(np.random.SeedSequence(key).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)  # noqa: NPY002 - for libraries that use the global generator
    torch.manual_seed(mixed)


class _Run:
    """One call of ``fit``."""

    def __init__(
        self, job: Job, disk_space: DiskSpace, fingerprint: str | None, stop: StopRequest
    ) -> None:
        options = job.options
        self.job, self.options, self.disk_space, self.stop = job, options, disk_space, stop
        dtype = choose_type(
            options.precision, choose_device(options.device), backbone_of(job.model)
        )
        self.fabric = build_fabric(options, dtype)
        self.device = self.fabric.device
        groups = job.parameter_groups or parameter_groups(job.model, options)
        if self.device.type == "cuda" and world() > 1:
            synchronise_norms(job.model)
        # FSDP2 takes contiguous weights alone
        if self.device.type == "cuda" and options.strategy != "fsdp":
            job.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = self.fabric.setup_module(job.model)
        self.optimizer = build_optimizer(job.model, groups, options, scaled=dtype == torch.float16)
        self.fabric_optimizer = cast(Any, self.fabric.setup_optimizers(self.optimizer))
        self.ema = MovingAverage(job.model, options.ema) if options.ema > 0 else None
        self.steps_per_epoch = math.ceil(len(job.train_loader) / options.accumulate)
        self.hold = Hold(job.model, job.hold, options)
        begin = job.hold * self.steps_per_epoch
        default: list[StepHook] = [Schedule(options, self.steps_per_epoch, begin)]
        self.step_hooks = job.step_hooks or default
        self.guard = Guard(job.run_dir) if job.guarded else None
        self.good = True  # of the batches of this optimizer step
        self.history = History(job.run_dir, job.best_metric)
        self.saver = Saver(job, self.fabric, self.optimizer, self.ema, self.history, fingerprint)
        self.at = Position()

    def train(self) -> History:
        """All epochs that are left."""
        job, options = self.job, self.options
        if is_main():
            claim_run_folder(job.run_dir, resume=options.resume, overwrite=options.overwrite)
        self.fabric.barrier()
        if options.resume:
            self.at = self.saver.resume()
        hooks: list[Hook] = []
        logger = None
        if is_main():
            write_text(job.run_dir / CONFIG, to_yaml(options))
            logger = start_logger(options.logger, self.history, options)
            hooks = [logger, *job.hooks]
        self._announce()
        try:
            while self.at.epoch < options.epochs:
                if is_main():
                    self.disk_space.require()
                self._hold_backbone()
                row = self._train_epoch()
                self._finish_epoch(row, self._validate())
                for hook in hooks:
                    hook(self.history)
                stop = any_rank(self.stop.wanted, self.device)
                if stop and self.at.epoch < options.epochs:
                    self._leave()
        finally:
            if logger is not None:
                logger.close()
        return self.history

    def _announce(self) -> None:
        more = f" and {world() - 1} more" if world() > 1 else ""
        log.info("training on %s%s, %d steps an epoch", self.device, more, self.steps_per_epoch)

    def _hold_backbone(self) -> None:
        """Freeze the backbone, or let it go, where its time has come; DDP is told anew what is
        trained."""
        if self.hold.set(self.at.epoch):
            if not self.hold.held:
                log.info("epoch %d: the backbone is trained from now on", self.at.epoch + 1)
            del self.model  # an earlier wrapper's hooks go with it
            self.model = self.fabric.setup_module(self.job.model)

    def _train_epoch(self) -> dict[str, float]:
        """Train the batches that are left of an epoch; the row of its history."""
        skip, length = self.at.batch, len(self.job.train_loader)
        title = f"epoch {self.at.epoch + 1}/{self.options.epochs}"
        progress = Progress(title, length, start=skip, enabled=is_main())
        losses = EpochLosses(self.at)
        self.model.train()
        try:
            for index, batch in enumerate(self._batches(skip)):
                if index < skip:
                    continue
                terms = self._step(batch.to(self.device), index)
                if self.good:
                    losses.add(terms)
                else:
                    losses.leave_out()
                if self.guard is not None and self._ends_step(index):
                    self._require_finite(batch)
                progress.advance(len(batch.images) * world())
                if losses.due():
                    losses.read()
                    progress.show(losses.means())
                if self._ends_step(index) and self._must_stop(index):
                    losses.read()
                    self._leave()
        except RuntimeError:
            if not self.stop.wanted:
                raise
            # Data workers that the same Ctrl-C has ended before the loop saw it.
            raise KeyboardInterrupt from None
        finally:
            progress.close()
        losses.read()
        return self._row(losses.means(), progress)

    def _batches(self, skip: int) -> Iterator[Any]:
        """The epoch's batches (none when all are done and only validation is left)."""
        loader = self.job.train_loader
        seed_everything(self.options.seed, self.at.epoch, rank())
        loader.set_epoch(self.at.epoch)
        return iter(loader) if skip < len(loader) else iter(())

    def _ends_step(self, index: int) -> bool:
        """Whether an optimizer step follows a batch."""
        return (index + 1) % self.options.accumulate == 0 or index + 1 == len(self.job.train_loader)

    def _step(self, batch: Any, index: int) -> dict[str, Tensor]:
        """Forward and backward of a batch, and the optimizer's step when it is due."""
        accumulate, due = self.options.accumulate, self._ends_step(index)
        first = index - index % accumulate
        share = min(accumulate, len(self.job.train_loader) - first)
        step = self.at.epoch * self.steps_per_epoch + index // accumulate
        if index == first:
            self.good = True
            for hook in self.step_hooks:
                hook.before(step, self.optimizer)
        seed_everything(self.options.seed, self.at.epoch, rank(), index + 1)
        # Python's own is for what all processes choose alike (a batch's size: all wait for one).
        random.seed(f"{self.options.seed} {self.at.epoch} {index}")
        with self.fabric.no_backward_sync(self.model, enabled=not due):
            terms = self.job.loss(self.model, batch)
            total = torch.stack([term.float() for term in terms.values()]).sum()
            if self.guard is not None and self.guard.bad(terms, self.device):
                self.good = False
            else:
                self.fabric.backward(total / share)
        if due:
            self._update(step)
        return terms

    def _update(self, step: int) -> None:
        norm = self._clip() if self.options.clip > 0 else None
        if self.guard is not None and norm is not None and not torch.isfinite(norm):
            self.good, self.guard.what = False, "gradient"
        if self.good:
            self.fabric_optimizer.step()
        self.fabric_optimizer.zero_grad(set_to_none=True)
        if not self.good:
            return
        if self.ema is not None:
            self.ema.update(step)
        for hook in self.step_hooks:
            hook.after(step)

    def _clip(self) -> Tensor:
        """Clip the gradients; their largest norm before, on the device and unread."""
        if not self.job.clip_apart:
            return self.fabric.clip_gradients(
                self.model,
                self.fabric_optimizer,
                max_norm=self.options.clip,
                error_if_nonfinite=False,  # it would read the norm off the device
            )  # type: ignore[return-value]
        self.fabric.strategy.precision.unscale_gradients(self.optimizer)
        parts: dict[str, list[Tensor]] = {}
        for group in self.optimizer.param_groups:
            parts.setdefault(group["label"].partition(".")[0], []).extend(group["params"])
        norms = [
            torch.nn.utils.clip_grad_norm_(parameters, self.options.clip)
            for parameters in parts.values()
        ]
        return torch.stack([full_tensor(norm) for norm in norms]).max()

    def _require_finite(self, batch: Any) -> None:
        """Count the step; save and raise UserError when there were too many bad ones."""
        assert self.guard is not None
        if self.guard.note(self.good, batch, self.at):
            self.saver.save_last(self.at)
            raise UserError(self.guard.words())

    def _row(self, means: dict[str, float], progress: Progress) -> dict[str, float]:
        """The history of an epoch's training, losses averaged over the processes."""
        seconds, rate = progress.seconds, progress.rate
        everyone = gather_objects(means)
        row = {"epoch": float(self.at.epoch + 1)}
        row |= {name: sum(one[name] for one in everyone) / len(everyone) for name in means}
        rates: dict[str, float] = {}
        for group in self.optimizer.param_groups:  # of the backbone: its fastest layer
            name = "lr" if group["label"] == "head" else f"lr_{group['label']}"
            rates[name] = max(group["lr"], rates.get(name, 0.0))
        return {**row, **rates, "images_per_second": rate, "seconds": seconds}

    def _validate(self) -> dict[str, float] | None:
        """Metrics of the averaged (else the trained) weights, the same on every process."""
        job, epoch = self.job, self.at.epoch + 1
        skipped = epoch % job.eval_every and epoch != self.options.epochs
        if job.validate is None or skipped:
            return None
        broadcast_buffers(job.model)
        try:
            with self.ema.swapped() if self.ema else nullcontext(), self.stop.at_once():
                broadcast_buffers(job.model)  # the averaged ones
                job.model.eval()
                with torch.no_grad(), self.fabric.autocast(), whole_rest(job.model):
                    metrics = job.validate(job.model)
        except KeyboardInterrupt:
            if world() == 1:  # several processes cannot be brought together here
                self._leave()
            raise
        return gather_objects(metrics)[0]

    def _finish_epoch(self, row: dict[str, float], metrics: dict[str, float] | None) -> None:
        """Record an epoch, then write best_model.pth, last_model.pth and the CSV."""
        metrics = {name: float(value) for name, value in (metrics or {}).items()}
        value = metrics.get(self.job.best_metric)
        if self.job.validate is None:
            value = -row["loss"]
        best = self.history.add({**row, **metrics}, value)
        self.saver.metrics = metrics
        self.at = Position(epoch=self.at.epoch + 1)
        undecided = self.history.best_epoch is None and self.at.epoch == self.options.epochs
        if best or undecided:  # undecided: the metric was never there, e.g. no truth to validate on
            self.saver.save_best(self.at.epoch)
        self.saver.save_last(self.at)
        if is_main():
            self.history.write_csv()
        # Those of a single class, as IoU/road, are for the files.
        shown = {k: v for k, v in self.history.last.items() if k != "epoch" and "/" not in k}
        log.info(
            "epoch %d/%d: %s%s",
            self.at.epoch,
            self.options.epochs,
            ", ".join(f"{k} {v:.4g}" for k, v in shown.items()),
            " (best)" if best else "",
        )

    def _must_stop(self, index: int) -> bool:
        """Whether to stop after this step, the same on every process."""
        if world() == 1:
            return self.stop.wanted
        step = index // self.options.accumulate + 1
        return step % STOP_STEPS == 0 and any_rank(self.stop.wanted, self.device)

    def _leave(self) -> None:
        """Save where we are, and go as Ctrl-C does."""
        self.saver.save_last(self.at)
        log.info("stopped and saved to %s; --resume goes on from here", self.job.run_dir / LAST)
        raise KeyboardInterrupt
