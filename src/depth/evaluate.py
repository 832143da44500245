"""``python -m src.evaluate`` of a model of depth."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ..core.files import write_json
from ..data.common.faults import report_faults
from ..data.common.loaders import valid_loader
from ..data.common.pairs import named_folders
from ..data.depths.reader import check_depths, read_depth_split
from ..data.depths.settings import DepthDataset
from ..data.depths.transforms import DepthTransform
from ..engine.precision import choose_batch
from ..predict.evaluation import (
    IMAGES,
    Rows,
    canvas_of,
    evaluation_device,
    header,
    source_of,
    worst_of,
    write_rows,
)
from ..predict.restore import resize_of
from .depther import FlipAveraged
from .evaluation import draw_maps, evaluate
from .restore import restore_depther

log = logging.getLogger(__name__)


def run(options: Any, out_dir: Path) -> dict[str, Any]:
    """RMSE, AbsRel, log10, SILog and delta1-3, with --flip of the mean with the mirrored image.
    options: EvaluationOptions and EvaluateDepth."""
    trained = restore_depther(options.model, imgsz=options.imgsz, weights=options.backbone_weights)
    found = source_of(options, trained, DepthDataset, ("images", "depths"))
    dataset, given = found.dataset, found.folders
    records, faults = read_depth_split(dataset, options.split, found.data_root, *given)
    report_faults([*faults, *check_depths(records, options.split)])
    folders = named_folders(dataset, options.split, "depths", found.data_root, *given)
    transform = DepthTransform(
        dataset, trained.image_size, resize_of(options, trained), training=False
    )
    load = partial(
        valid_loader,
        transform=transform,
        batch=choose_batch(options.batch, options.device),
        workers=options.workers,
        canvas=canvas_of(options, trained),
    )
    model: nn.Module = FlipAveraged(trained.model) if options.flip else trained.model
    keep = range(0, len(records), len(records) // 6 or 1)
    rows: Rows = {}
    with evaluation_device(options, trained) as device:
        scores, maps = evaluate(model.to(device), load(records), device, keep=keep, rows=rows)
        worst = [records[i] for i in worst_of(rows, "RMSE", high=True)]
        _, found_worst = evaluate(model, load(worst), device, keep=range(len(worst)))
    assert scores is not None
    told = {
        "source": [str(folders.images), str(folders.truths)],
        "flip": options.flip,
        "crop": dataset.EVAL_CROP,
    }
    results = {**header(options, trained, found, len(records), **told), **scores.as_dict()}
    write_json(out_dir / "results.json", results)
    write_rows(out_dir, [record.image for record in records], rows)
    draw_maps(maps, records, dataset, out_dir / "depths.jpg")
    draw_maps(found_worst, worst, dataset, out_dir / "worst.jpg")
    log.info("%s", scores.table())
    log.info("results.json, %s, worst.jpg and depths.jpg are in %s", IMAGES, out_dir)
    return results
