"""Running a segmenter of objects over a split and scoring it in the original images' pixels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..core.progress import Progress
from ..core.structures import Geometry
from ..data.common.loaders import Batch
from ..data.instances import outlines
from ..data.instances.reader import InstanceReader
from ..data.instances.records import InstanceRecord, Objects
from ..engine.distributed import gather_objects, is_main
from ..metrics.boxes import BoxTruth, ImageResult
from ..metrics.detection import DetectionMetric, DetectionScores
from ..metrics.panoptic import PanopticMetric, PanopticScores
from ..predict.evaluation import Rows
from ..predict.in_step import in_step
from ..predict.predictor import to_host
from .objects import (
    Instances,
    Panoptic,
    instances_from,
    instances_of,
    panoptic_from,
    panoptic_of,
)

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

SHOWN = 0.5  # the least score of an instance in pictures
Found = dict[int, Any]  # by position in the record list: Instances or Panoptic


def predict_objects(
    model: nn.Module,
    loader: DataLoader[Batch],
    device: torch.device,
    on_device: Callable[[Any, Geometry], dict[str, Any]],
    take: Callable[[int, Any, Geometry], None],
) -> None:
    """What ``on_device`` makes of every image of this process's share, brought home in one copy a
    batch; ``take`` gets (index, result, geometry)."""
    progress = Progress("evaluation", len(loader))
    with torch.inference_mode():
        for batch in in_step(loader, model, device):
            answers = model(batch.to(device).image_list())
            results = [on_device(one, how) for one, how in zip(answers, batch.geometries)]
            for index, geometry, result in zip(batch.indices, batch.geometries, to_host(results)):
                take(index, result, geometry)
            progress.advance(len(batch.indices))
    progress.close()


def evaluate_instances(
    model: nn.Module,
    loader: DataLoader[Batch],
    records: Sequence[InstanceRecord],
    reader: InstanceReader,
    device: torch.device,
    keep: Collection[int] = (),
    full: bool = False,
) -> tuple[DetectionScores | None, Found]:
    """Mask AP of ``model`` over all records once, whatever the number of processes: the main one
    gets the scores (the others None) and what it found itself in those of ``keep``. full: curves
    and the confusion matrix as well."""
    metric = DetectionMetric(reader.dataset.names)
    results: dict[int, ImageResult] = {}
    kept: Found = {}

    def take(index: int, result: Any, geometry: Geometry) -> None:
        found = instances_from(result, geometry)
        results[index] = scored(found, reader.of(records[index], geometry.original))
        if index in keep:
            kept[index] = found.some(found.scores >= SHOWN)

    predict_objects(model, loader, device, instances_of, take)
    metric.merge(gather_objects([results[index] for index in sorted(results)]))
    return (metric.compute(full, SHOWN), kept) if is_main() else (None, {})


def scored(found: Instances, truth: Objects) -> ImageResult:
    """An image as the metric takes it; labels there begin at 1."""
    rles = outlines.to_rles(found.masks)
    return ImageResult(
        boxes=outlines.mask_boxes(rles),
        scores=found.scores.astype(np.float64),
        labels=found.labels + 1,
        masks=rles,
        areas=outlines.mask_areas(rles),
        truth=BoxTruth(
            boxes=outlines.mask_boxes(truth.rles),
            labels=truth.labels + 1,
            crowd=truth.crowd,
            areas=outlines.mask_areas(truth.rles),
            masks=truth.rles,
        ),
    )


def evaluate_panoptic(
    model: nn.Module,
    loader: DataLoader[Batch],
    records: Sequence[InstanceRecord],
    reader: InstanceReader,
    device: torch.device,
    keep: Collection[int] = (),
    rows: Rows | None = None,
) -> tuple[PanopticScores | None, Found]:
    """Panoptic quality; else as ``evaluate_instances``. rows: gets the figures of each image."""
    stuff = reader.dataset.stuff
    metric = PanopticMetric(reader.dataset.names, stuff)
    kept: Found = {}

    def take(index: int, result: Any, geometry: Geometry) -> None:
        found = panoptic_from(result, geometry, stuff)
        truth = reader.of(records[index], geometry.original)
        one = PanopticMetric(reader.dataset.names, stuff)
        one.update((found.ids, found.labels), segments_of(truth)[:2], truth.crowd)
        metric.merge(one.state)
        if rows is not None:
            rows[index] = one.compute().flat()
        if index in keep:
            kept[index] = found

    predict_objects(model, loader, device, panoptic_of, take)
    mine, *others = gather_objects(metric.state)
    if not is_main():
        return None, {}
    for state in others:
        metric.merge(state)
    return metric.compute(), kept


def segments_of(truth: Objects) -> Panoptic:
    """The truth of an image as segments; where masks overlap the last is seen."""
    ids = np.zeros((truth.size.height, truth.size.width), np.int32)
    for number, mask in enumerate(outlines.from_rles(truth.rles, truth.size), start=1):
        ids[mask.astype(bool)] = number
    return Panoptic(ids, truth.labels, np.ones(len(truth.labels), np.float32))


EVALUATE: dict[str, Callable[..., tuple[Any, Found]]] = {
    "instance": evaluate_instances,
    "panoptic": evaluate_panoptic,
}
