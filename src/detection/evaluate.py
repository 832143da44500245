"""``python -m src.evaluate`` of a detector."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from ..core.files import write_json
from ..data.boxes.doctor import quick_check
from ..data.boxes.reader import read_split, split_paths
from ..data.boxes.records import BoxRecord
from ..data.boxes.settings import BoxDataset
from ..data.boxes.transforms import box_transform
from ..data.common.loaders import valid_loader
from ..engine.precision import choose_batch
from ..metrics.detection import DetectionScores
from ..predict.evaluation import arithmetic, canvas_of, check_classes, header, source_of
from ..predict.restore import Trained, resize_of
from ..visualise.plots import plot_confusion, plot_pr_curves
from .evaluation import evaluate, predict_images, score
from .infer import detection_predictor
from .restore import restore_detector

log = logging.getLogger(__name__)


def run(options: Any, out_dir: Path) -> dict[str, Any]:
    """COCO's figures, VOC's AP50 (11-point and area), PR curves and a confusion matrix of what
    scores --threshold or more. options: EvaluationOptions and EvaluateDetection."""
    trained = restore_detector(options.model, imgsz=options.imgsz)
    found = source_of(options, trained, BoxDataset, ("img", "annot"))
    dataset = found.dataset
    check_classes(dataset.names, trained, found.where)
    records, faults = read_split(dataset, options.split, found.data_root, found.folders)
    quick_check({options.split: records}, faults, dataset.names)
    places = split_paths(dataset, options.split, found.data_root, *found.folders)
    if options.tiles > 1:
        tiled = predict_images(detection_predictor(trained, options), records)
        scores = score(tiled, records, trained.names, full=True, threshold=options.threshold)
    else:
        scores = _evaluate_whole(options, trained, records)
    assert scores is not None
    told = {"source": [str(place) for place in places if place], "threshold": options.threshold}
    told |= {"tiles": options.tiles} if options.tiles > 1 else {}
    results = {**header(options, trained, found, len(records), **told), **scores.to_plain()}
    write_json(out_dir / "results.json", results)
    plot_pr_curves(np.linspace(0, 1, 101), scores.precision, out_dir / "pr_curves.png")
    assert scores.confusion is not None
    matrix_names = ["background", *scores.classes]
    plot_confusion(scores.confusion, matrix_names, out_dir / "confusion_matrix.png")
    log.info("%s", table(results))
    log.info("results.json, pr_curves.png and confusion_matrix.png are in %s", out_dir)
    return results


def _evaluate_whole(
    options: Any, trained: Trained, records: list[BoxRecord]
) -> DetectionScores | None:
    loader = valid_loader(
        records,
        box_transform("none", trained.image_size, resize_of(options, trained), training=False),
        batch=choose_batch(options.batch, options.device),
        workers=options.workers,
        canvas=canvas_of(options, trained),
    )
    with arithmetic(options, trained) as device:
        return evaluate(
            trained.model.to(device),
            loader,
            records,
            trained.names,
            device,
            full=True,
            threshold=options.threshold,
        )


def table(results: dict[str, Any]) -> str:
    """The headline figures and those of each class, as lines for the terminal."""
    names: tuple[str, ...] = ("mAP", "mAP50", "mAP75", "small", "medium", "large", "AR100")
    names += ("voc_mAP50_11point", "voc_mAP50_area")
    lines = [f"  {name:<20}{_figure(results[name])}" for name in names]
    at = f"of scores from {results['threshold']:g}: precision, recall, F1"
    lines += [f"  {'class':<20}{'AP':>6}{'AP50':>8}   {at}"]
    for name, pair in results["per_class"].items():
        values = (pair["AP"], pair["AP50"]) if pair else (None, None)
        row = f"  {name[:19]:<20}{_figure(values[0])}{_figure(values[1]):>8}"
        rates = "".join(_figure(value) for value in results["at_threshold"][name].values())
        lines.append(f"{row}  {rates}")
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "     -" if value is None else f"{value:6.3f}"
