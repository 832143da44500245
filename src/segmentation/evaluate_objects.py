"""``python -m src.evaluate`` of a segmenter of objects: mask AP, or panoptic quality."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.files import write_json
from ..data.boxes.reader import split_paths
from ..data.common.faults import report_faults
from ..data.common.images import read_image
from ..data.common.loaders import valid_loader
from ..data.instances.reader import InstanceReader, check_instances, read_instance_split
from ..data.instances.settings import InstanceDataset
from ..data.instances.transforms import InstanceTransform
from ..engine.precision import choose_batch
from ..metrics.confusion import image_errors
from ..metrics.detection import DetectionScores
from ..metrics.panoptic import PanopticScores
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
from ..visualise.plots import plot_confusion, plot_pr_curves
from ..visualise.worst import draw_worst
from .object_evaluation import SHOWN, Found, evaluate_instances, evaluate_panoptic
from .object_pictures import draw_truth
from .object_results import draw_result
from .restore import task_of

log = logging.getLogger(__name__)


def run_objects(options: Any, trained: Trained, out_dir: Path) -> dict[str, Any]:
    """results.json, images.csv, worst.jpg; of instances curves and a confusion matrix as well.
    options: EvaluationOptions and EvaluateSegmentation."""
    task = task_of(trained.checkpoint)
    if options.looks():
        raise UserError(f"{', '.join(options.looks())}: not for a model of --task {task}")
    found = source_of(options, trained, InstanceDataset, ("images", "masks"))
    dataset = found.dataset
    check_classes(dataset.names, trained, found.where)
    records, faults = read_instance_split(dataset, options.split, found.data_root, found.folders)
    reader = InstanceReader(dataset)
    report_faults([*faults, *check_instances(records, options.split, reader)])
    resize = resize_of(options, trained)
    load = partial(
        valid_loader,
        transform=InstanceTransform(reader, trained.image_size, resize, "none", training=False),
        batch=choose_batch(options.batch, options.device),
        workers=options.workers,
        canvas=canvas_of(options, trained),
    )
    rows: Rows = {}
    with evaluation_device(options, trained) as device:
        model = trained.model.to(device)
        scores: DetectionScores | PanopticScores | None
        if task == "instance":
            scores, _ = evaluate_instances(model, load(records), records, reader, device, full=True)
            assert scores is not None
            rows = {i: dict(image_errors(one, SHOWN)) for i, one in enumerate(scores.results)}
            worst = worst_of(rows, "errors", high=True)
        else:
            scores, _ = evaluate_panoptic(model, load(records), records, reader, device, rows=rows)
            assert scores is not None
            worst = worst_of(rows, "PQ")
        some = [records[i] for i in worst]
        again = evaluate_instances if task == "instance" else evaluate_panoptic
        _, kept = again(model, load(some), some, reader, device, keep=range(len(some)))
    places = split_paths(dataset, options.split, found.data_root, *found.folders)
    told = {"source": [str(place) for place in places if place], "task": task}
    results = {**header(options, trained, found, len(records), **told), **scores.to_plain()}
    write_json(out_dir / "results.json", results)
    write_rows(out_dir, [record.image for record in records], rows)
    if isinstance(scores, DetectionScores):
        _plot(scores, out_dir)
    pictures: Found = {index: kept[place] for place, index in enumerate(worst)}

    def draw(index: int) -> list[np.ndarray]:
        image = read_image(records[index].image)
        drawn = draw_result(image, pictures[index], dataset.names, dataset.stuff)
        return [draw_truth(records[index], reader), drawn]

    paths = [record.image for record in records]
    draw_worst(worst, rows, paths, draw, out_dir / "worst.jpg")
    log.info("%s", object_figures(results))
    log.info("results.json, images.csv, worst.jpg and pictures are in %s", out_dir)
    return results


def _plot(scores: DetectionScores, folder: Path) -> None:
    recall = np.linspace(0, 1, 101)
    plot_pr_curves(recall, scores.precision, folder / "pr_curves.png", scores.scores)
    assert scores.confusion is not None
    names = ["background", *scores.classes]
    title = f"Confusion: scores from {SHOWN:g}, IoU of masks from 0.5"
    plot_confusion(scores.confusion, names, folder / "confusion_matrix.png", title=title)


def object_figures(results: dict[str, Any]) -> str:
    """The headline figures and those of each class, as lines for the terminal."""
    instances = results["task"] == "instance"
    headline: tuple[str, ...] = ("PQ", "SQ", "RQ", "PQ_things", "PQ_stuff")
    if instances:
        headline = ("mAP", "mAP50", "mAP75", "small", "medium", "large", "AR100")
    columns = ("AP", "AP50") if instances else ("PQ", "SQ", "RQ")
    lines = [f"  {name:<20}{_figure(results[name])}" for name in headline]
    lines.append(f"  {'class':<20}" + "".join(f"{name:>6}" for name in columns))
    for name, values in results["per_class"].items():
        cells = (_figure(values[column] if values else None) for column in columns)
        lines.append(f"  {name[:19]:<20}" + "".join(cells))
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "     -" if value is None else f"{value:6.3f}"
