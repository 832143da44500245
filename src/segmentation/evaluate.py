"""``python -m src.evaluate`` of a segmenter."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

from ..core.files import write_json
from ..data.common.faults import report_faults
from ..data.common.loaders import valid_loader
from ..data.masks.reader import MaskReader, check_masks, read_mask_split, split_folders
from ..data.masks.settings import MaskDataset
from ..data.masks.transforms import MaskTransform
from ..engine.precision import choose_batch
from ..predict.evaluation import (
    IMAGES,
    Rows,
    canvas_of,
    check_classes,
    evaluation_device,
    header,
    source_of,
    worst_of,
    write_rows,
)
from ..predict.restore import resize_of
from ..visualise.draw import colour_table
from ..visualise.plots import plot_confusion
from .evaluate_objects import run_objects
from .evaluation import draw_maps, evaluate
from .inference import looking
from .restore import restore_segmenter, task_of
from .settings import SegmentationInference

log = logging.getLogger(__name__)


def run(options: Any, out_dir: Path) -> dict[str, Any]:
    """mIoU, pixel accuracy, boundary F, the figures of each class and a confusion matrix.
    options: EvaluationOptions and EvaluateSegmentation."""
    trained = restore_segmenter(
        options.model, imgsz=options.imgsz, weights=options.backbone_weights
    )
    if task_of(trained.checkpoint) != "semantic":
        return run_objects(options, trained, out_dir)
    found = source_of(options, trained, MaskDataset, ("images", "masks"))
    dataset = found.dataset
    check_classes(dataset.names, trained, found.where)
    dataset.CHANNELS = len(trained.model.backbone.mean)
    folders = split_folders(dataset, options.split, found.data_root, *found.folders)
    records, faults = read_mask_split(dataset, folders)
    reader = MaskReader(dataset)
    report_faults([*faults, *check_masks(records, options.split, reader)])
    mode = resize_of(options, trained)
    batch = choose_batch(options.batch, options.device)
    model, resize = looking(trained.model, options, trained.image_size, mode, batch)
    load = partial(
        valid_loader,
        transform=MaskTransform(reader, trained.image_size, resize, training=False),
        batch=1 if options.slide else batch,
        workers=options.workers,
        canvas=canvas_of(options, trained),
    )
    rows: Rows = {}
    with evaluation_device(options, trained) as device:
        model = model.to(device)
        names = trained.names
        scores, _ = evaluate(model, load(records), names, device, boundary=True, rows=rows)
        worst = [records[i] for i in worst_of(rows, "pixel_accuracy")]
        _, maps = evaluate(model, load(worst), names, device, keep=range(len(worst)))
    assert scores is not None
    places = folders.images, folders.truths, folders.listed
    told = {
        "source": [str(place) for place in places if place],
        **{name: getattr(options, name) for name in SegmentationInference.__annotations__},
    }
    results = {**header(options, trained, found, len(records), **told), **scores.as_dict()}
    write_json(out_dir / "results.json", results)
    write_rows(out_dir, [record.image for record in records], rows)
    matrix = out_dir / "confusion_matrix.png"
    plot_confusion(scores.confusion, scores.names, matrix, percent=True)
    log.info("%s", scores.table())
    draw_maps(maps, worst, reader, colour_table(len(names), dataset.colours), out_dir / "worst.jpg")
    log.info("results.json, %s, worst.jpg and confusion_matrix.png are in %s", IMAGES, out_dir)
    return results
