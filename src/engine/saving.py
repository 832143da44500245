"""Writing a run's checkpoints and going on from them."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..core.adapters import is_adapter, without_adapters
from ..core.errors import UserError
from ..core.files import require_writable
from . import checkpoint as checkpoints
from . import state
from .distributed import broadcast_buffers, gather_objects, is_main, rank, world
from .ema import MovingAverage
from .history import History
from .job import Job
from .run_folder import BEST, LAST

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)

# Options that may differ between a run and its resumption without a word.
FREE = {"resume", "overwrite", "workers", "device", "strategy", "out_dir", "skip_check"}
FREE |= {"HOW_TO_GET"}  # of the dataset YAML


@dataclass
class Position:
    """Where a run is: complete epochs, batches done of the next, their summed losses, and how many
    of the batches were left out."""

    epoch: int = 0
    batch: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    left_out: int = 0


def require_frozen(options: Any, task: str) -> None:
    """UserError where --head-only would leave out a backbone that could not be found again."""
    if not hasattr(options, "model_arguments"):
        raise UserError(f"--head-only is not for {task}, which trains the backbone")
    if options.tune not in ("frozen", "lora"):
        raise UserError(
            f"--head-only leaves the backbone out, and --tune {options.tune} trains it: drop one"
        )
    if options.init is not None:
        raise UserError(
            f"--head-only does not go with --init: the backbone is in {options.init} alone"
        )
    if options.weights == "none":
        raise UserError(
            "--head-only leaves the backbone out, and random weights (--weights none) are nowhere "
            "else: give --weights FILE, or leave --head-only out"
        )


def frozen_fingerprint(job: Job) -> str | None:
    """The fingerprint of the backbone that ``head_only`` leaves out; None when it is trained."""
    backbone = getattr(job.model, "backbone", None)
    if not job.head_only or backbone is None:
        return None
    named = backbone.named_parameters()
    trained = any(p.requires_grad and not is_adapter(name) for name, p in named)
    return None if trained else checkpoints.fingerprint(backbone)


class DiskSpace:
    """The space that the checkpoints of a job need."""

    def __init__(self, job: Job, head_only: bool) -> None:
        self.folder = job.run_dir
        self.size = state.checkpoint_bytes(
            job.model, job.options.optimizer, job.options.ema > 0, head_only
        )

    def needed(self) -> int:
        """Bytes: a temporary file, and the files that are not there yet to be replaced."""
        absent = [name for name in (LAST, BEST) if not (self.folder / name).exists()]
        return self.size * (1 + len(absent))

    def require(self) -> None:
        """UserError now, rather than after an epoch that could not be saved."""
        require_writable(self.folder, self.needed())


class Saver:
    """Writes ``best_model.pth`` and ``last_model.pth``, and resumes from the latter.

    Every method but ``compare`` is to be called on all processes.
    """

    def __init__(
        self,
        job: Job,
        fabric: Fabric,
        optimizer: torch.optim.Optimizer,
        ema: MovingAverage | None,
        history: History,
        fingerprint: str | None,
    ) -> None:
        self.job, self.fabric, self.optimizer = job, fabric, optimizer
        self.ema, self.history, self.fingerprint = ema, history, fingerprint
        self.scaler = getattr(fabric.strategy.precision, "scaler", None)
        self.metrics: dict[str, float] = {}

    def save_best(self, epoch: int) -> None:
        """The averaged (else the trained) weights, for inference."""
        with self.ema.swapped() if self.ema else nullcontext():
            self._save(BEST, epoch, None)

    def save_last(self, position: Position) -> None:
        """The trained weights and all that resuming needs."""
        training = {
            "optimizer": state.optimizer_state(self.job.model, self.optimizer),
            "ema": self.ema.state() if self.ema else None,
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "history": self.history.state(),
            "epoch": position.epoch,
            "position": position.batch,
            "sums": gather_objects(position.sums),
            "left_out": position.left_out,
            "batches": len(self.job.train_loader),
        }
        self._save(LAST, position.epoch, training)

    def _save(self, name: str, epoch: int, training: dict[str, Any] | None) -> None:
        broadcast_buffers(self.job.model)
        weights = state.full_weights(self.job.model)
        if training is None and self.fingerprint is None:  # for inference: as of a plain model
            weights = without_adapters(weights)
        if is_main():
            checkpoints.save_checkpoint(
                self.job.run_dir / name,
                weights,
                self.job.describe,
                epoch=epoch,
                metrics=self.metrics,
                training=training,
                backbone_fingerprint=self.fingerprint,
            )
        self.fabric.barrier()

    def resume(self) -> Position:
        """Restore last_model.pth; the beginning when the run was ended before there was one."""
        path = self.job.run_dir / LAST
        if not path.is_file():
            log.info("--resume: %s does not exist yet, so training starts at the beginning", path)
            return Position()
        content = checkpoints.load_checkpoint(path, self.job.describe["task"])
        training = content.get("training")
        if training is None:
            raise UserError(f"{path} holds no training state, so it cannot be resumed")
        self.compare(content, training, path)
        state.load_full_weights(self.job.model, content["model"])
        state.load_optimizer_state(self.job.model, self.optimizer, training["optimizer"])
        if self.ema is not None and training["ema"] is not None:
            self.ema.load(training["ema"])
        if self.scaler is not None and training["scaler"]:
            self.scaler.load_state_dict(training["scaler"])
        self.history.load(training["history"])
        self.metrics = content["metrics"]
        position = Position(
            training["epoch"],
            training["position"],
            _own(training["sums"]),
            training.get("left_out", 0),
        )
        epochs = self.job.options.epochs
        batch = f", batch {position.batch}" if position.batch else ""
        log.info("resuming after epoch %d%s of %d", position.epoch, batch, epochs)
        if position.epoch >= epochs:
            log.info("all epochs are done; a larger --epochs trains on")
        return position

    def compare(self, content: dict[str, Any], training: dict[str, Any], path: Path) -> None:
        """UserError when a checkpoint is of another model; a line for options that differ."""
        describe = checkpoints.plain(self.job.describe)
        for name in ("head", "backbone", "classes"):
            if content[name] != describe[name]:
                raise UserError(
                    f"{path} has {name} {content[name]}, and this run {describe[name]}: resume "
                    "with the options it was started with, or choose another --out-dir"
                )
        if content.get("backbone_fingerprint") != self.fingerprint:
            raise UserError(
                f"{path} was trained on other backbone weights: resume with the --weights it was "
                "started with"
            )
        model = self.job.model
        own = {
            name: tuple(value.shape)
            for name, value in model.state_dict().items()
            if self.fingerprint is None or not checkpoints.of_frozen(name)
        }
        theirs = {name: tuple(value.shape) for name, value in content["model"].items()}
        trained = {name for name, value in model.named_parameters() if value.requires_grad}
        if own != theirs or trained != set(training["optimizer"]):
            raise UserError(
                f"{path} has other weights or trains others than this run: resume with the "
                "options it was started with (--head, --tune, --imgsz ...)"
            )
        batches = len(self.job.train_loader)
        if training["position"] and training["batches"] != batches:
            raise UserError(
                f"{path} stopped within an epoch of {training['batches']} batches, and there are "
                f"{batches} now: resume with the same --batch and data"
            )
        old, new = _flat(content["config"] or {}), _flat(describe["config"] or {})
        changed = [n for n in new if n not in FREE and n in old and old[n] != new[n]]
        if changed:
            pairs = ", ".join(f"{name} {old[name]} -> {new[name]}" for name in changed)
            log.info("options that differ from the resumed run: %s", pairs)


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """Options by name, those of the dataset YAML among them."""
    return {**config, **(config.get("dataset") or {}), "dataset": None}


def _own(sums: list[dict[str, float]]) -> dict[str, float]:
    """This process's summed losses; their mean when the number of processes has changed."""
    if len(sums) == world():
        return sums[rank()]
    return {name: sum(one[name] for one in sums) / len(sums) for name in sums[0]}
