"""``python -m src.evaluate`` of a classifier."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core.files import write_json
from ..data.common.faults import report_faults
from ..data.common.images import read_picture
from ..data.common.loaders import valid_loader
from ..data.labels.reader import check_labels, read_labels, split_source
from ..data.labels.settings import LabelDataset
from ..data.labels.transforms import LabelTransform
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
from ..visualise.worst import draw_worst
from .evaluation import draw_scores, evaluate
from .restore import restore_classifier

log = logging.getLogger(__name__)


def run(options: Any, out_dir: Path) -> dict[str, Any]:
    """Top-1, top-5 (multi-label: mAP), the figures of each class, confusion and calibration.
    options: EvaluationOptions and EvaluateClassification."""
    trained = restore_classifier(
        options.model, imgsz=options.imgsz, weights=options.backbone_weights
    )
    found = source_of(options, trained, LabelDataset, ("dir",))
    dataset = found.dataset
    names = dataset.CLASS_NAMES or trained.names
    if set(names) != set(trained.names):  # labels are found by name: the order does not matter
        check_classes(names, trained, found.where)
    dataset.CLASS_NAMES, dataset.MULTI_LABEL = trained.names, trained.checkpoint["multi_label"]
    flags = {options.split: found.folders[0]}
    own = trained.checkpoint["config"].get("dataset") or {}  # hub:..._imagenet knows the folders
    dataset.CLASS_FOLDERS = dataset.CLASS_FOLDERS or own.get("CLASS_FOLDERS")
    data = read_labels(dataset, found.data_root, flags=flags, splits=[options.split])
    report_faults([*data.faults, *check_labels(data)])
    records = data.records[options.split]
    classes = len(trained.names) if data.multi_label else None
    size, resize = trained.image_size, resize_of(options, trained)
    channels = len(trained.model.backbone.mean)
    loader = valid_loader(
        records,
        LabelTransform(size, resize, training=False, classes=classes, channels=channels),
        batch=choose_batch(options.batch, options.device),
        workers=options.workers,
        canvas=canvas_of(options, trained),
    )
    rows: Rows = {}
    with evaluation_device(options, trained) as device:
        scores = evaluate(trained.model.to(device), loader, trained.names, device, rows)
    assert scores is not None
    source = [str(split_source(dataset, options.split, found.data_root, found.folders[0]))]
    told = header(options, trained, found, len(records), source=source)
    results = {**told, **scores.as_dict()}
    write_json(out_dir / "results.json", results)
    write_rows(out_dir, [record.image for record in records], rows)
    pictures = [IMAGES, *draw_scores(scores, out_dir)]
    wrong = {i: row for i, row in rows.items() if row["truth"] != row["prediction"]}
    surest = {i: {**row, "sure": _sure(row)} for i, row in wrong.items()}

    def draw(index: int) -> list[np.ndarray]:
        return [read_picture(records[index].image, channels)]

    worst = worst_of(surest, "sure", high=True)
    draw_worst(worst, wrong, [record.image for record in records], draw, out_dir / "worst.jpg")
    pictures += ["worst.jpg"] if worst else []
    log.info("%s\nresults.json, %s are in %s", scores.table(), ", ".join(pictures), out_dir)
    return results


def _sure(row: Mapping[str, Any]) -> float:
    """How sure the model was of what it named, at most (0: it named nothing)."""
    return max((float(value) for value in row["probability"].split("; ") if value), default=0.0)
