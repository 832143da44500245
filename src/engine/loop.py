"""The training loop of every task, on Lightning Fabric.

Everything random is seeded from (seed, epoch, batch, rank), and the learning rate is a function
of the step, so that a run resumes exactly from weights, optimizer state and a position.
"""

from __future__ import annotations

import copy
import logging
import math
import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from src.core.config import to_yaml
from src.core.errors import UserError
from src.core.files import require_writable, write_text
from src.engine import checkpoint as checkpoints
from src.engine import run_folder, state
from src.engine.distributed import (
    any_rank,
    broadcast_buffers,
    build_fabric,
    gather_objects,
    is_main,
    rank,
    world,
)
from src.engine.ema import MovingAverage
from src.engine.history import History
from src.engine.hooks import Hook, TensorBoardHook
from src.engine.interrupt import StopRequest
from src.engine.optim import (
    ParameterGroup,
    Schedule,
    build_optimizer,
    parameter_groups,
    require_sensible,
)
from src.engine.progress import Progress
from src.engine.settings import TrainingOptions

log = logging.getLogger(__name__)

READ_BATCHES = 100  # losses are read off the device this often, or each second
STOP_STEPS = 8  # with several processes: agree on Ctrl-C every so many optimizer steps
# Options that may differ between a run and its resumption without a word.
FREE = {"resume", "overwrite", "workers", "device", "strategy", "out_dir", "skip_check"}


class Loader(Protocol):
    """A DataLoader of batches that have ``to(device)`` and ``images`` [B, ...]; this process's
    share of each global batch, the same number of batches on every process."""

    def set_epoch(self, epoch: int) -> None:
        """Shuffle for an epoch, counted from 0."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


@dataclass
class Job:
    """What ``fit`` is to do.

    loss: (the wrapped model in train mode, a batch on the device) -> scalar terms; their sum is
    minimised. validate: (the plain model in eval mode, no gradients, under autocast) -> metrics;
    called on every process, the main one's result counts (gather with
    ``distributed.gather_objects``). best_metric: higher is better; without ``validate`` the
    least training loss counts. describe: the fields of a checkpoint beside the weights. hooks:
    called on the main process after each epoch. head_only: leave a frozen backbone out of the
    checkpoints.
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
    head_only: bool = False


def fit(job: Job) -> History:
    """Train; write ``best_model.pth``, ``last_model.pth``, ``config.yaml``, ``history.csv`` and
    TensorBoard events to ``job.run_dir``.

    Ctrl-C or SIGTERM: saves at the end of the step and raises KeyboardInterrupt; ``--resume``
    then goes on from that very step. UserError: an earlier run in the folder, no room or right
    to write, a loss that is no longer finite, a checkpoint that does not fit.
    """
    options = job.options
    require_sensible(options)
    room = 0
    if is_main():
        room = _needed_bytes(job)
        run_folder.check_run_folder(
            job.run_dir, resume=options.resume, overwrite=options.overwrite, needed_bytes=room
        )
    if len(job.train_loader) == 0:
        raise UserError("there is no batch to train on: fewer training images than processes")
    with StopRequest() as stop:
        return _Run(job, room, stop).train()


def seed_everything(*key: int) -> None:
    """Seed Python, numpy and torch from a tuple of numbers, e.g. (seed, epoch, batch, rank)."""
    mixed = int(np.random.SeedSequence([abs(part) for part in key]).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)  # noqa: NPY002 - for libraries that use the global generator
    torch.manual_seed(mixed)


def _needed_bytes(job: Job) -> int:
    """Free space to ask for: a temporary last_model.pth beside the files that are not there yet."""
    size = state.checkpoint_bytes(
        job.model, job.options.optimizer, job.options.ema > 0, job.head_only
    )
    absent = [n for n in (run_folder.LAST, run_folder.BEST) if not (job.run_dir / n).exists()]
    return size * (1 + len(absent))


def _frozen_fingerprint(job: Job) -> str | None:
    """The fingerprint of the backbone that ``head_only`` leaves out; None when it is trained."""
    backbone = getattr(job.model, "backbone", None)
    if not job.head_only or backbone is None:
        return None
    trained = any(parameter.requires_grad for parameter in backbone.parameters())
    return None if trained else checkpoints.fingerprint(backbone)


class _Run:
    """One call of ``fit``."""

    def __init__(self, job: Job, room: int, stop: StopRequest) -> None:
        options = job.options
        self.job, self.options, self.stop, self.room = job, options, stop, room
        self.fabric = build_fabric(options)
        seed_everything(options.seed)
        groups = job.parameter_groups or parameter_groups(job.model, options)
        self.fingerprint = _frozen_fingerprint(job)
        self.sharded = options.strategy == "fsdp"
        # Processes validate different numbers of batches, which FSDP's gathering does not allow.
        self.twin = copy.deepcopy(job.model).to(self.fabric.device) if self.sharded else None
        self.model = self.fabric.setup_module(job.model)
        self.module: nn.Module = job.model
        optimizer = build_optimizer(self.module, groups, options)
        self.optimizer = self.fabric.setup_optimizers(optimizer)
        self.ema = MovingAverage(self.module, options.ema) if options.ema > 0 else None
        steps = math.ceil(len(job.train_loader) / options.accumulate)
        self.schedule = Schedule(options, steps)
        self.steps_per_epoch = steps
        self.history = History(job.run_dir, job.best_metric)
        self.epoch = 0  # epochs that are complete
        self.position = 0  # batches of the next epoch that are done
        self.sums: dict[str, float] = {}  # of the loss terms over those batches
        self.metrics: dict[str, float] = {}  # of the last epoch

    def train(self) -> History:
        """All epochs that are left."""
        if is_main():
            run_folder.claim_run_folder(
                self.job.run_dir, resume=self.options.resume, overwrite=self.options.overwrite
            )
        self.fabric.barrier()
        if self.options.resume:
            self._resume()
        board = None
        if is_main():
            write_text(self.job.run_dir / run_folder.CONFIG, to_yaml(self.options))
            board = TensorBoardHook(self.history)
        try:
            while self.epoch < self.options.epochs:
                self._require_room()
                row = self._train_epoch()
                self._finish_epoch(row, self._validate())
                for hook in [board, *self.job.hooks] if board else []:
                    hook(self.history)
                stop = any_rank(self.stop.wanted, self.fabric.device)
                if stop and self.epoch < self.options.epochs:
                    self._stopped()
        finally:
            if board:
                board.close()
        return self.history

    # One epoch

    def _train_epoch(self) -> dict[str, float]:
        """Train the batches that are left of an epoch; the row of its history."""
        loader, epoch = self.job.train_loader, self.epoch
        skip, length = self.position, len(loader)
        progress = Progress(
            f"epoch {epoch + 1}/{self.options.epochs}", length, skip, enabled=is_main()
        )
        unread: list[Tensor] = []
        names: list[str] = []
        read_at = progress.began
        self.model.train()
        try:
            for index, batch in enumerate(self._batches(skip)):
                if index < skip:
                    continue
                terms = self._step(batch.to(self.fabric.device), index)
                names = names or sorted(terms)
                unread.append(torch.stack([terms[name].detach().float() for name in names]))
                progress.advance(len(batch.images) * world())
                if len(unread) >= READ_BATCHES or progress.now() - read_at > 1:
                    self._read(names, unread, index)
                    read_at = progress.now()
                    progress.show(self._means(index + 1))
                if self._ends_step(index) and self._must_stop(index):
                    self._read(names, unread, index)
                    self.position = index + 1
                    self._stopped()
        except RuntimeError:
            # Data workers that a Ctrl-C has ended before the loop saw it.
            if not self.stop.wanted:
                raise
            raise KeyboardInterrupt from None
        finally:
            progress.close()
        if unread:
            self._read(names, unread, length - 1)
        self.position = length
        return self._row(progress)

    def _batches(self, skip: int) -> Iterator[Any]:
        """The epoch's batches (none when all are done: only validation is left)."""
        seed_everything(self.options.seed, self.epoch, rank())
        self.job.train_loader.set_epoch(self.epoch)
        return iter(self.job.train_loader) if skip < len(self.job.train_loader) else iter(())

    def _ends_step(self, index: int) -> bool:
        """Whether an optimizer step follows a batch."""
        return (index + 1) % self.options.accumulate == 0 or index + 1 == len(self.job.train_loader)

    def _step(self, batch: Any, index: int) -> dict[str, Tensor]:
        """Forward and backward of a batch, and the optimizer's step when it is due."""
        accumulate = self.options.accumulate
        first = index - index % accumulate
        share = min(accumulate, len(self.job.train_loader) - first)
        due = self._ends_step(index)
        seed_everything(self.options.seed, self.epoch, rank(), index + 1)
        with self.fabric.no_backward_sync(self.model, enabled=not due):
            terms = self.job.loss(self.model, batch)
            total = torch.stack([term.float() for term in terms.values()]).sum()
            self.fabric.backward(total / share)
        if due:
            step = self.epoch * self.steps_per_epoch + index // accumulate
            self.schedule.apply(self.optimizer.optimizer, step)
            if self.options.clip > 0:
                self.fabric.clip_gradients(
                    self.model,
                    self.optimizer,
                    max_norm=self.options.clip,
                    error_if_nonfinite=False,
                )
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            if self.ema is not None:
                self.ema.update(step)
        return terms

    def _read(self, names: list[str], unread: list[Tensor], index: int) -> None:
        """Add the losses since the last reading to the sums; UserError when one is not finite."""
        values = torch.stack(unread).double().cpu()
        unread.clear()
        if not torch.isfinite(values).all():
            row = int((~torch.isfinite(values)).any(dim=1).nonzero()[0])
            bad = [name for name, value in zip(names, values[row]) if not torch.isfinite(value)]
            batch = index - len(values) + row + 2
            raise UserError(
                f"the loss is no longer finite: {', '.join(bad)} at batch {batch} of epoch "
                f"{self.epoch + 1}. Try a lower --lr, --clip 1, --warmup-epochs 1, or --precision "
                "32; --resume with these goes on from the last good epoch"
            )
        for name, value in zip(names, values.sum(dim=0).tolist()):
            self.sums[name] = self.sums.get(name, 0.0) + value

    def _means(self, batches: int) -> dict[str, float]:
        means = {f"loss_{name}": value / batches for name, value in self.sums.items()}
        return {"loss": sum(means.values()), **(means if len(means) > 1 else {})}

    def _row(self, progress: Progress) -> dict[str, float]:
        """The history of the epoch's training, losses averaged over the processes."""
        seconds, rate = progress.now() - progress.began, progress.rate
        means = self._means(len(self.job.train_loader))
        everyone = gather_objects(means)
        means = {name: sum(one[name] for one in everyone) / len(everyone) for name in means}
        row = {"epoch": float(self.epoch + 1), **means}
        for group in reversed(self.optimizer.param_groups):
            row["lr" if group["label"] == "head" else f"lr_{group['label']}"] = group["lr"]
        return {**row, "images_per_second": rate, "seconds": seconds}

    def _validate(self) -> dict[str, float] | None:
        """Metrics of the averaged (else the trained) weights, the same on every process."""
        job, last = self.job, self.epoch + 1 == self.options.epochs
        if job.validate is None or ((self.epoch + 1) % job.eval_every and not last):
            return None
        broadcast_buffers(self.module)
        self.stop.immediate = True
        try:
            with self.ema.swapped() if self.ema else nullcontext():
                model = self.module
                if self.twin is not None:
                    state.copy_weights(self.module, self.twin)
                    model = self.twin
                model.eval()
                with torch.no_grad(), self.fabric.autocast():
                    metrics = job.validate(model)
        except KeyboardInterrupt:
            self.stop.immediate = False
            if world() == 1:
                self._save_last()
                log.info(
                    "interrupted while validating; --resume validates epoch %d again",
                    self.epoch + 1,
                )
            raise
        finally:
            self.stop.immediate = False
            self.model.train()
        return gather_objects(metrics)[0]

    # Files

    def _finish_epoch(self, row: dict[str, float], metrics: dict[str, float] | None) -> None:
        """Record an epoch, then write best_model.pth, last_model.pth and the CSV."""
        metrics = {name: float(value) for name, value in (metrics or {}).items()}
        value = metrics.get(self.job.best_metric)
        if self.job.validate is None:
            value = -row["loss"]
        self.metrics = metrics
        best = self.history.add({**row, **metrics}, value)
        self.epoch, self.position, self.sums = self.epoch + 1, 0, {}
        if best:
            with self.ema.swapped() if self.ema else nullcontext():
                self._save(run_folder.BEST, training=None)
        self._save_last()
        if is_main():
            self.history.write_csv()
            shown = {**row, **metrics}
            log.info(
                "epoch %d/%d: %s%s",
                self.epoch,
                self.options.epochs,
                " ".join(f"{k} {v:.4g}" for k, v in shown.items() if k != "epoch"),
                " (best)" if best else "",
            )

    def _require_room(self) -> None:
        """UserError now rather than after an epoch that could not be saved."""
        if is_main():
            require_writable(self.job.run_dir, _needed_bytes_left(self.job, self.room))

    def _save_last(self) -> None:
        optimizer = state.optimizer_state(self.module, self.optimizer.optimizer)
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        self._save(
            run_folder.LAST,
            training={
                "optimizer": optimizer,
                "ema": self.ema.state() if self.ema else None,
                "scaler": scaler.state_dict() if scaler is not None else None,
                "history": self.history.state(),
                "epoch": self.epoch,
                "position": self.position,
                "sums": gather_objects(self.sums),
                "batches": len(self.job.train_loader),
            },
        )

    def _save(self, name: str, training: dict[str, Any] | None) -> None:
        """Write a checkpoint of the weights as they are (collective under FSDP)."""
        broadcast_buffers(self.module)
        weights = state.full_weights(self.module)
        if is_main():
            checkpoints.save_checkpoint(
                self.job.run_dir / name,
                weights,
                self.job.describe,
                epoch=self.epoch,
                metrics=self.metrics,
                training=training,
                backbone_fingerprint=self.fingerprint,
            )
        self.fabric.barrier()

    def _resume(self) -> None:
        """Go on from last_model.pth, or begin when the run was ended before there was one."""
        path = self.job.run_dir / run_folder.LAST
        if not path.is_file():
            log.info("--resume: %s does not exist yet, so training starts at the beginning", path)
            return
        content = checkpoints.load_checkpoint(path, self.job.describe["task"])
        training = content.get("training")
        if training is None:
            raise UserError(f"{path} holds no training state, so it cannot be resumed")
        self._compare(content, training, path)
        weights = content["model"]
        state.load_full_weights(self.module, weights)
        state.load_optimizer_state(self.module, self.optimizer.optimizer, training["optimizer"])
        if self.ema is not None and training["ema"] is not None:
            self.ema.load(training["ema"])
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        if scaler is not None and training["scaler"]:
            scaler.load_state_dict(training["scaler"])
        self.history.load(training["history"])
        self.epoch, self.position = training["epoch"], training["position"]
        sums = training["sums"]
        same = len(sums) == world()
        mean = {name: sum(s.get(name, 0.0) for s in sums) / len(sums) for name in sums[0]}
        self.sums = sums[rank()] if same else mean
        batch = f", batch {self.position}" if self.position else ""
        log.info("resuming after epoch %d%s of %d", self.epoch, batch, self.options.epochs)
        if self.epoch >= self.options.epochs:
            log.info("all epochs are done; a larger --epochs trains on")

    def _compare(self, content: dict[str, Any], training: dict[str, Any], path: Path) -> None:
        """UserError when a checkpoint is of another model; a line for options that differ."""
        plain = checkpoints.plain(self.job.describe)
        for name in ("head", "backbone", "classes"):
            if content[name] != plain[name]:
                raise UserError(
                    f"{path} has {name} {content[name]}, and this run {plain[name]}: resume with "
                    "the options it was started with, or choose another --out-dir"
                )
        own = {n: tuple(t.shape) for n, t in self.module.state_dict().items()}
        theirs = {n: tuple(t.shape) for n, t in content["model"].items()}
        if "backbone_fingerprint" in content:
            if content["backbone_fingerprint"] != self.fingerprint:
                raise UserError(f"{path} was trained on other backbone weights; give the same ones")
            own = {n: s for n, s in own.items() if not n.startswith(checkpoints.BACKBONE)}
        trained = {n for n, p in self.module.named_parameters() if p.requires_grad}
        if own != theirs or trained != set(training["optimizer"]):
            raise UserError(
                f"{path} has other weights or trains others than this run: resume with the "
                "options it was started with (--head, --fine-tune, --imgsz ...)"
            )
        if training["position"] and training["batches"] != len(self.job.train_loader):
            raise UserError(
                f"{path} stopped within an epoch of {training['batches']} batches, and there are "
                f"{len(self.job.train_loader)} now: resume with the same --batch and data"
            )
        old, new = content["config"] or {}, plain["config"] or {}
        changed = [n for n in new if n not in FREE and n in old and old[n] != new[n]]
        if changed and is_main():
            pairs = ", ".join(f"{name} {old[name]} -> {new[name]}" for name in changed)
            log.info("options that differ from the resumed run: %s", pairs)

    # Stopping

    def _must_stop(self, index: int) -> bool:
        """Whether to stop after this step, the same on every process."""
        if world() == 1:
            return self.stop.wanted
        step = index // self.options.accumulate + 1
        return step % STOP_STEPS == 0 and any_rank(self.stop.wanted, self.fabric.device)

    def _stopped(self) -> None:
        """Save where we are, and leave as Ctrl-C does."""
        self._save_last()
        log.info(
            "stopped and saved to %s; --resume goes on from here",
            self.job.run_dir / run_folder.LAST,
        )
        raise KeyboardInterrupt


def _needed_bytes_left(job: Job, room: int) -> int:
    """As ``_needed_bytes``, without looking into the (by now perhaps sharded) model."""
    absent = [n for n in (run_folder.LAST, run_folder.BEST) if not (job.run_dir / n).exists()]
    size = room // 3 if len(absent) == 2 else 0
    present = [job.run_dir / n for n in (run_folder.LAST, run_folder.BEST) if n not in absent]
    size = max([size, *(path.stat().st_size for path in present)])
    return size * (1 + len(absent))
