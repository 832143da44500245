"""Running a model of depth over a split and scoring it in the original images' pixels."""

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
from ..data.common.images import read_image, write_image
from ..data.common.loaders import Batch
from ..data.depths.reader import DepthRecord, read_depth
from ..data.depths.settings import DepthDataset
from ..engine.distributed import gather_objects, is_main
from ..metrics.depth import DepthMetric, DepthScores
from ..predict.evaluation import Rows
from ..predict.in_step import in_step
from ..visualise.depth import depth_rows
from ..visualise.draw import contact_sheet

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

Maps = dict[int, np.ndarray]  # by position in the record list: float32 [H, W] metres


def depth_map(depth: Tensor, geometry: Geometry) -> Tensor:
    """Depth [1, h, w] of a resized image -> float32 [H, W] metres in the original's pixels."""
    return upsample(depth[None], (geometry.original.height, geometry.original.width))[0, 0]


def evaluate(
    model: nn.Module,
    loader: DataLoader[Batch],
    device: torch.device,
    keep: Collection[int] = (),
    rows: Rows | None = None,
) -> tuple[DepthScores | None, Maps]:
    """Score ``model`` over all of the loader's records once, whatever the number of processes.

    Every process calls it with its share as ``loader``; the main one gets the scores (the others
    None), and the maps of those records in ``keep`` that it has seen itself;
    rows: gets the figures of each image.
    """
    metric, kept = DepthMetric(), {}
    progress = Progress("evaluation", len(loader))
    with torch.inference_mode():
        for batch in in_step(loader, model, device):
            answers = model([image.to(device) for image in batch.image_list()])
            for i, answer in enumerate(answers):
                found = depth_map(answer, batch.geometries[i]).cpu().numpy()
                one = DepthMetric()
                one.update(found, batch.targets[i]["depth"].numpy())
                metric.merge(one.state())
                if rows is not None:
                    rows[batch.indices[i]] = one.compute().values
                if batch.indices[i] in keep:
                    kept[batch.indices[i]] = found
            progress.advance(len(batch))
    progress.close()
    states = gather_objects(metric.state())
    if not is_main():
        return None, {}
    for state in states[1:]:
        metric.merge(state)
    return metric.compute(), kept


def draw_maps(
    maps: Maps, records: Sequence[DepthRecord], dataset: DepthDataset, path: Path
) -> None:
    """A picture with a row for each map: image, truth, prediction in the same colours."""
    images, depths, captions = [], [], []
    for index in sorted(maps):
        truth, found = read_depth(records[index].depth, dataset), maps[index]
        images.append(read_image(records[index].image))
        depths.append((truth, found))
        error = np.abs(found - truth)[truth > 0]
        said = f"prediction, {error.mean():.2f} m off" if error.size else "prediction"
        captions += [records[index].id, "truth", said]
    if images:
        write_image(path, contact_sheet(depth_rows(images, depths), 3, captions, cell=320))
