"""Heads that are fitted in one go from frozen features: k-NN and logistic regression."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..backbones.batching import ImageFeatures, are_features
from ..core.config import to_yaml
from ..core.files import write_text
from ..core.progress import Progress
from ..engine.checkpoint import save_checkpoint
from ..engine.history import History
from ..engine.job import Job
from ..engine.precision import arithmetic, choose_device, choose_type
from ..engine.run_folder import BEST, CONFIG, claim_run_folder
from ..engine.saving import frozen_fingerprint
from .classifier import Classifier
from .heads.base import FittedHead
from .heads.knn import KnnHead
from .losses import stack_targets

log = logging.getLogger(__name__)


@dataclass
class HeldBatch:
    """A batch whose features are in memory; else as ``data.common.loaders.Batch``."""

    images: list[ImageFeatures]
    targets: list[Any]

    def __len__(self) -> int:
        return len(self.images)

    def image_list(self) -> list[ImageFeatures]:
        """What the model takes instead of images."""
        return self.images

    def to(self, device: torch.device | str) -> HeldBatch:
        """The batch, whose features are on the device that they were made on."""
        return self


def fit_head(job: Job) -> History:
    """Features of the training images, a head fitted to them, scores, best_model.pth: what
    ``engine.loop.fit`` is to heads with gradient steps, with a history of one row."""
    options, model = job.options, job.model
    assert isinstance(model, Classifier) and isinstance(model.head, FittedHead)
    assert job.validate is not None
    claim_run_folder(job.run_dir, resume=False, overwrite=options.overwrite)
    write_text(job.run_dir / CONFIG, to_yaml(options))
    device = choose_device(options.device)
    dtype = choose_type(options.precision, device, model.backbone.name)
    model.to(device).eval()
    history = History(job.run_dir, job.best_metric)
    progress = Progress("features", len(job.train_loader))
    with arithmetic(dtype, device):
        vectors, targets = gather_vectors(model, job.train_loader, device, progress)
    row = {"epoch": 1.0, "images_per_second": progress.rate, "seconds": progress.seconds}
    progress.close()
    model.head.fit(vectors, targets)
    model.to(device)
    with arithmetic(dtype, device):
        if isinstance(model.head, KnnHead):
            metrics = choose_k(job, model.head, len(vectors))
        else:
            metrics = job.validate(model) or {}
    history.add({**row, **metrics}, metrics[job.best_metric])
    weights = model.state_dict()
    save_checkpoint(
        job.run_dir / BEST,
        weights,
        job.describe,
        epoch=1,
        metrics=metrics,
        backbone_fingerprint=frozen_fingerprint(job),
    )
    history.write_csv()
    for hook in job.hooks:
        hook(history)
    return history


@torch.inference_mode()
def gather_vectors(
    model: Classifier, loader: Any, device: torch.device, progress: Progress
) -> tuple[Tensor, Tensor]:
    """(features [N, D], targets [N] or [N, C]) of all of a loader's images, on the device.

    loader: of images, or of their kept features.
    """
    loader.set_epoch(0)
    batches = feature_batches(model, loader, device, progress)
    vectors = [one.values["vector"].float() for batch in batches for one in batch.images]
    targets = [stack_targets(batch.targets) for batch in batches]
    return torch.stack(vectors).clone(), torch.cat(targets).clone().to(device)


@torch.inference_mode()
def feature_batches(
    model: Classifier, loader: Any, device: torch.device, progress: Progress | None = None
) -> list[HeldBatch]:
    """All of a loader's batches, their features on the device: each image through the backbone
    once."""
    batches = []
    for batch in loader:
        moved = batch.to(device)
        inputs = moved.image_list()
        features = list(inputs if are_features(inputs) else model.features(inputs))
        batches.append(HeldBatch(features, batch.targets))
        if progress is not None:
            progress.advance(len(batch))
    return batches


def choose_k(job: Job, head: KnnHead, count: int) -> dict[str, float]:
    """Evaluate each of --knn-k; the best stays. The metrics of the best, and each one's figure."""
    assert job.validate is not None
    wanted = sorted({min(k, count) for k in job.options.knn_k})  # type: ignore[attr-defined]
    found = {}
    for k in wanted:
        head.choose(k)
        found[k] = job.validate(job.model) or {}
    best = max(wanted, key=lambda k: found[k][job.best_metric])
    head.choose(best)
    metrics = job.validate(job.model) or {}  # once more: its scores are those that are drawn
    figures = {f"{job.best_metric}_k{k}": one[job.best_metric] for k, one in found.items()}
    log.info("k-NN: %s", ", ".join(f"{name} {value:.4f}" for name, value in figures.items()))
    return {**metrics, **figures}
