"""Running a classifier over a split and scoring it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.progress import Progress
from ..engine.distributed import gather_objects, is_main
from ..metrics.classification import ClassificationMetric, ClassificationScores
from ..visualise.plots import plot_confusion, plot_reliability
from .classifier import Classifier
from .losses import stack_targets


def evaluate(
    model: nn.Module, loader: Any, names: Sequence[str], device: torch.device
) -> ClassificationScores | None:
    """Score ``model`` over all of the loader's images once, whatever the number of processes.

    loader: this process's share, of images or of their kept features. The main process gets the
    scores, the others None.
    """
    assert isinstance(model, Classifier)
    metric = ClassificationMetric(names, model.criterion.multi_label)
    progress = Progress("evaluation", len(loader))
    with torch.inference_mode():
        for batch in loader:
            moved = batch.to(device)
            found = model.criterion.probabilities(model(moved.image_list()))
            metric.update(found.cpu().numpy(), stack_targets(batch.targets).numpy())
            progress.advance(len(batch))
    progress.close()
    mine, *others = gather_objects(metric.state())
    if not is_main():
        return None
    for state in others:
        metric.merge(state)
    return metric.compute()


def draw_scores(scores: ClassificationScores, folder: Path) -> list[str]:
    """confusion_matrix.png and reliability.png in the folder; the names that were written."""
    reliability = scores.reliability
    plot_reliability(
        reliability.confidence,
        reliability.accuracy,
        reliability.counts,
        reliability.ece,
        folder / "reliability.png",
    )
    if scores.confusion is None:
        return ["reliability.png"]
    plot_confusion(scores.confusion, scores.names, folder / "confusion_matrix.png")
    return ["reliability.png", "confusion_matrix.png"]
