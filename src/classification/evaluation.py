"""Running a classifier over a split and scoring it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..core.progress import Progress
from ..engine.distributed import gather_objects, is_main
from ..metrics.classification import THRESHOLD, ClassificationMetric, ClassificationScores
from ..predict.evaluation import Rows
from ..predict.in_step import in_step
from ..visualise.plots import plot_confusion, plot_reliability
from .classifier import Classifier
from .losses import stack_targets


def evaluate(
    model: nn.Module,
    loader: Any,
    names: Sequence[str],
    device: torch.device,
    rows: Rows | None = None,
) -> ClassificationScores | None:
    """Score ``model`` over all of the loader's images once, whatever the number of processes.

    loader: this process's share, of images or of their kept features. The main process gets the
    scores, the others None. rows: gets the truth and the prediction of each image.
    """
    assert isinstance(model, Classifier)
    metric = ClassificationMetric(names, model.criterion.multi_label)
    progress = Progress("evaluation", len(loader))
    with torch.inference_mode():
        for batch in in_step(loader, model, device):
            moved = batch.to(device)
            found = model.criterion.probabilities(model(moved.image_list()))
            probabilities, truth = found.cpu().numpy(), stack_targets(batch.targets).numpy()
            metric.update(probabilities, truth)
            if rows is not None:
                told = [_row(*pair, names) for pair in zip(probabilities, truth)]
                rows.update(zip(batch.indices, told))
            progress.advance(len(batch))
    progress.close()
    mine, *others = gather_objects(metric.state())
    if not is_main():
        return None
    for state in others:
        metric.merge(state)
    return metric.compute()


def _row(probabilities: np.ndarray, truth: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Of an image: probabilities [C]; truth: a class, or (several labels) 0 and 1 [C]."""
    several = np.ndim(truth) > 0
    true = np.flatnonzero(truth > 0.5).tolist() if several else [int(truth)]
    said = np.flatnonzero(probabilities >= THRESHOLD).tolist()
    said = said if several else [int(probabilities.argmax())]
    return {
        "truth": "; ".join(names[i] for i in true),
        "prediction": "; ".join(names[i] for i in said),
        "probability": "; ".join(f"{probabilities[i]:.6g}" for i in said),
    }


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
