"""Running a segmenter over a split and scoring it in the original images' pixels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ..backbones.dense import upsample
from ..core.progress import Progress
from ..core.structures import Geometry
from ..data.common.images import write_image
from ..data.common.loaders import Batch
from ..data.masks.reader import MaskReader, MaskRecord
from ..engine.distributed import gather_objects, is_main
from ..metrics.segmentation import SegmentationMetric, SegmentationScores
from ..predict.evaluation import Rows
from ..predict.in_step import in_step
from ..visualise.draw import contact_sheet, draw_classes, draw_errors, legend_below

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

Maps = dict[int, np.ndarray]  # by position in the record list: uint8 [H, W] class indices


MOST_VALUES = 2**25  # logits in the original's pixels that are there at once: 128 MiB


def class_map(logits: Tensor, geometry: Geometry) -> Tensor:
    """Logits [C, h, w] of a resized image -> uint8 [H, W] in the pixels of the original.

    Some classes after the other: 150 at 2000x1500 would take 1.8 GB an image.
    """
    size = (geometry.original.height, geometry.original.width)
    block = max(1, MOST_VALUES // (size[0] * size[1]))
    best, found = upsample(logits[None, :block], size)[0].max(dim=0)
    for start in range(block, len(logits), block):
        values, indices = upsample(logits[None, start : start + block], size)[0].max(dim=0)
        found = torch.where(values > best, indices + start, found)
        best = torch.maximum(best, values)
    return found.to(torch.uint8)


def class_probabilities(logits: Tensor, geometry: Geometry) -> Tensor:
    """Logits [C, h, w] of a resized image -> float32 [C, H, W] in the original's pixels."""
    size = (geometry.original.height, geometry.original.width)
    return upsample(logits[None].float(), size)[0].softmax(dim=0)


def evaluate(
    model: nn.Module,
    loader: DataLoader[Batch],
    names: Sequence[str],
    device: torch.device,
    *,
    boundary: bool = False,
    keep: Collection[int] = (),
    rows: Rows | None = None,
) -> tuple[SegmentationScores | None, Maps]:
    """Score ``model`` over all of the loader's records once, whatever the number of processes.

    Every process calls it with its share as ``loader``; the main one gets the scores (the others
    None), and the maps of those records in ``keep`` that it has seen itself. boundary: with the
    boundary F-score; rows: gets the figures of each image.
    """
    metric = SegmentationMetric(names, boundary)
    kept: Maps = {}
    progress = Progress("evaluation", len(loader))
    with torch.inference_mode():
        for batch in in_step(loader, model, device):
            truths = [target["mask"].numpy() for target in batch.targets]
            results = model([image.to(device) for image in batch.image_list()])
            for index, geometry, logits, truth in zip(
                batch.indices, batch.geometries, results, truths
            ):
                found = class_map(logits, geometry).cpu().numpy()
                one = SegmentationMetric(names, boundary)
                one.update(found, truth)
                metric.merge(one.state())
                if rows is not None:
                    rows[index] = one.compute().flat()
                if index in keep:
                    kept[index] = found
            progress.advance(len(batch.indices))
    progress.close()
    mine, *others = gather_objects(metric.state())
    if not is_main():
        return None, {}
    for state in others:
        metric.merge(state)
    return metric.compute(), kept


def draw_maps(
    maps: Maps,
    records: Sequence[MaskRecord],
    reader: MaskReader,
    colours: np.ndarray,
    path: Path,
) -> None:
    """A picture with a row for each map: image, truth, prediction, error; below it a legend."""
    cells, captions = [], []
    for index in sorted(maps):
        image, truth = reader.picture(records[index]), reader.of(records[index])
        cells += [
            image,
            draw_classes(image, truth, colours, 0.75),
            draw_classes(image, maps[index], colours, 0.75),
            draw_errors(maps[index], truth, image),
        ]
        right = np.mean((maps[index] == truth)[truth < len(reader.dataset.names)] * 100)
        captions += [records[index].id, "truth", "prediction", f"{right:.1f} % right"]
    if cells:
        sheet = contact_sheet(cells, 4, captions, cell=320)
        write_image(path, legend_below(sheet, reader.dataset.names, colours))
