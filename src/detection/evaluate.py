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
from ..data.common.images import read_image
from ..data.common.loaders import valid_loader
from ..engine.precision import choose_batch
from ..metrics.confusion import image_errors
from ..metrics.detection import DetectionScores
from ..predict.evaluation import (
    Rows,
    canvas_of,
    check_classes,
    evaluation_device,
    header,
    source_of,
    worst_of,
    write_rows,
)
from ..predict.restore import Trained, resize_of
from ..visualise.draw import draw_detections
from ..visualise.plots import plot_confusion, plot_pr_curves, plot_score_curves
from ..visualise.worst import draw_worst
from .evaluation import evaluate, predict_images, score
from .infer import detection_predictor, use_nms
from .restore import restore_detector

log = logging.getLogger(__name__)


def run(options: Any, out_dir: Path) -> dict[str, Any]:
    """COCO's figures, VOC's AP50 (11-point and area), PR curves and a confusion matrix of what
    scores --threshold or more. options: EvaluationOptions and EvaluateDetection."""
    trained = restore_detector(options.model, imgsz=options.imgsz, weights=options.backbone_weights)
    use_nms(trained, options.nms)
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
    told |= {"nms": options.nms} if options.nms is not None else {}
    results = {**header(options, trained, found, len(records), **told), **scores.to_plain()}
    write_json(out_dir / "results.json", results)
    recall = np.linspace(0, 1, 101)
    plot_pr_curves(recall, scores.precision, out_dir / "pr_curves.png", scores.scores)
    best = results["best_threshold"]
    plot_score_curves(scores.score_curves(), best, out_dir / "score_curves.png")
    assert scores.confusion is not None
    matrix_names = ["background", *scores.classes]
    title = f"Confusion: scores from {options.threshold:g}, IoU from 0.5"
    plot_confusion(scores.confusion, matrix_names, out_dir / "confusion_matrix.png", title=title)
    report_worst(scores, records, trained.names, options.threshold, out_dir)
    log.info("%s", figures_table(results))
    log.info(
        "results.json, images.csv, worst.jpg, pr_curves.png, score_curves.png and "
        "confusion_matrix.png are in %s",
        out_dir,
    )
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
    with evaluation_device(options, trained) as device:
        return evaluate(
            trained.model.to(device),
            loader,
            records,
            trained.names,
            device,
            full=True,
            threshold=options.threshold,
        )


def report_worst(
    scores: DetectionScores,
    records: list[BoxRecord],
    names: list[str],
    threshold: float,
    out_dir: Path,
) -> None:
    """images.csv: what is wrong image by image; worst.jpg: those with the most errors."""
    pairs = zip(records, scores.results, strict=True)
    rows: Rows = {i: dict(image_errors(result, threshold)) for i, (_, result) in enumerate(pairs)}
    paths = [record.image for record in records]
    write_rows(out_dir, paths, rows)

    def draw(index: int) -> list[np.ndarray]:
        result, image = scores.results[index], read_image(records[index].image)
        keep = result.scores >= threshold
        found = result.boxes[keep], result.labels[keep], names, result.scores[keep]
        truth = draw_detections(image, result.truth.boxes, result.truth.labels, names)
        return [truth, draw_detections(image, *found)]

    worst = worst_of(rows, "errors", high=True)
    draw_worst(worst, rows, paths, draw, out_dir / "worst.jpg")


def figures_table(results: dict[str, Any]) -> str:
    """The headline figures and those of each class, as lines for the terminal."""
    names: tuple[str, ...] = ("mAP", "mAP50", "mAP75", "small", "medium", "large", "AR100")
    names += ("voc_mAP50_11point", "voc_mAP50_area")
    lines = [f"  {name:<20}{_figure(results[name])}" for name in names]
    at = f"of scores from {results['threshold']:g}: precision, recall, F1"
    at += "; the best F1, and at which score"
    lines += [f"  {'class':<20}{'AP':>6}{'AP50':>8}   {at}"]
    for name, pair in results["per_class"].items():
        values = (pair["AP"], pair["AP50"]) if pair else (None, None)
        row = f"  {name[:19]:<20}{_figure(values[0])}{_figure(values[1]):>8}"
        rates = "".join(_figure(value) for value in results["at_threshold"][name].values())
        best = results["best_threshold"].get(name)
        top = f"  {best['F1']:6.3f} at {best['threshold']:.2f}" if best else ""
        lines.append(f"{row}  {rates}{top}")
    best = results["best_threshold"].get("all")
    if best:
        lines.append(f"  mean F1 is best, {best['F1']:.3f}, with --threshold {best['threshold']:g}")
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "     -" if value is None else f"{value:6.3f}"
