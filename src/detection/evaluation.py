"""Running a detector over a split and scoring it in the original images' pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from ..core.progress import Progress
from ..core.structures import Detections
from ..data.boxes.records import BoxRecord
from ..data.common.images import read_image
from ..data.common.loaders import Batch
from ..engine.distributed import gather_objects, is_main
from ..metrics.boxes import BoxTruth
from ..metrics.detection import DetectionMetric, DetectionScores
from ..predict.in_step import in_step
from ..predict.predictor import to_host
from ..predict.results import rescale_detections

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from ..predict.predictor import Predictor
    from .heads.base import Detector

Found = dict[int, Detections]  # by position in the record list


def predict_split(model: nn.Module, loader: DataLoader[Batch], device: torch.device) -> Found:
    """Detections of every image of this process's share, in pixels of the original image.

    A batch's results come back in one copy; nothing waits for the device before it.
    """
    found: Found = {}
    model = cast("Detector", model)
    progress = Progress("evaluation", len(loader))
    with torch.inference_mode():
        for batch in in_step(loader, model, device):
            batch = batch.to(device)
            results = to_host(model.start(batch.image_list()))
            for index, geometry, result in zip(batch.indices, batch.geometries, results):
                found[index] = rescale_detections(model.finish(result), geometry)
            progress.advance(len(batch.indices))
    progress.close()
    return found


def truth_of(record: BoxRecord) -> BoxTruth:
    """A record's objects as the metric takes them."""
    return BoxTruth(
        boxes=record.boxes, labels=record.labels, difficult=record.difficult, crowd=record.crowd
    )


def evaluate(
    model: nn.Module,
    loader: DataLoader[Batch],
    records: Sequence[BoxRecord],
    classes: Sequence[str],
    device: torch.device,
    *,
    full: bool = False,
    threshold: float = 0.25,
) -> DetectionScores | None:
    """Score ``model`` over all records once, whatever the number of processes.

    Every process calls it with its share as ``loader``; the main one gets the scores, the others
    None. full: VOC's AP50, precision-recall curves and the confusion matrix (of scores from
    ``threshold`` on) as well.
    """
    found = predict_split(model, loader, device)
    return score(found, records, classes, full=full, threshold=threshold)


def predict_images(predictor: Predictor[Detections], records: Sequence[BoxRecord]) -> Found:
    """Detections of every record's image, by a predictor."""
    found: Found = {}
    progress = Progress("evaluation", len(records))
    for start in range(0, len(records), predictor.batch):
        part = records[start : start + predictor.batch]
        results = predictor.predict([read_image(record.image) for record in part])
        found.update(enumerate(results, start))
        progress.advance(len(part))
    progress.close()
    return found


def score(
    found: Found,
    records: Sequence[BoxRecord],
    classes: Sequence[str],
    *,
    full: bool = False,
    threshold: float = 0.25,
) -> DetectionScores | None:
    """The figures of this process's detections and the others'; see ``evaluate``."""
    metric = DetectionMetric(classes)
    indices = sorted(found)
    metric.update([found[i] for i in indices], [truth_of(records[i]) for i in indices])
    metric.merge(gather_objects(metric.results))
    if not is_main():
        return None
    assert len(metric.results) == len(records), "every image is evaluated once"
    return metric.compute(full=full, confusion_threshold=threshold)
