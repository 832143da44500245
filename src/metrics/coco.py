"""COCO's evaluation by faster-coco-eval (https://github.com/MiXaiLL76/faster_coco_eval)."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence

import numpy as np

from .boxes import ImageResult

MAX_DETECTIONS = 100
AREAS = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}


def _annotations(results: Sequence[ImageResult]) -> tuple[list[dict], list[dict]]:
    """(truths, detections) as COCO annotation dicts."""
    truths: list[dict] = []
    found: list[dict] = []
    for image, result in enumerate(results, start=1):
        truth = result.truth
        flags = {"iscrowd": truth.flags("crowd").astype(int), "difficult": truth.flags("difficult")}
        _append(truths, image, truth.boxes, truth.labels, truth.areas, flags)
        _append(found, image, result.boxes, result.labels, None, {"score": result.scores})
    return truths, found


def _append(
    rows: list[dict],
    image: int,
    boxes: np.ndarray,
    labels: np.ndarray,
    areas: np.ndarray | None,
    columns: dict[str, np.ndarray],
) -> None:
    """A dict for each box; ids start at 1 (0 means unmatched)."""
    corners = _xywh(boxes)
    if areas is None:
        areas = corners[:, 2] * corners[:, 3]
    columns = {"bbox": corners, "category_id": labels, "area": areas, **columns}
    keys = ("id", "image_id", *columns)
    start = len(rows) + 1
    for number, values in enumerate(zip(*(np.asarray(c).tolist() for c in columns.values()))):
        rows.append(dict(zip(keys, (start + number, image, *values))))


def _xywh(boxes: np.ndarray) -> np.ndarray:
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def coco_evaluation(results: Sequence[ImageResult], classes: int) -> dict[str, np.ndarray]:
    """faster-coco-eval's accumulated arrays (https://github.com/MiXaiLL76/faster_coco_eval)."""
    truths, found = _annotations(results)
    if not truths:
        return {
            "precision": np.full((10, 101, classes, 4, 1), -1.0),
            "scores": np.full((10, 101, classes, 4, 1), -1.0),
            "recall": np.full((10, classes, 4, 1), -1.0),
        }
    with contextlib.redirect_stdout(io.StringIO()):
        return _evaluate(truths, found, len(results), classes)


def _evaluate(
    truths: list[dict], found: list[dict], images: int, classes: int
) -> dict[str, np.ndarray]:
    from faster_coco_eval import COCO, COCOeval_faster

    logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)

    class Evaluation(COCOeval_faster):
        """COCO's evaluation, with difficult objects ignored (IoU as usual)."""

        def _prepare(self) -> None:
            super()._prepare()
            for annotation in truths:  # the C++ side reads the flag from these very dicts
                if annotation["difficult"]:
                    annotation["ignore"] = 1

    common = {
        "images": [{"id": image} for image in range(1, images + 1)],
        "categories": [{"id": label, "name": str(label)} for label in range(1, classes + 1)],
    }
    tables = []
    for rows in (truths, found):
        table = COCO()
        table.dataset = {**common, "annotations": rows}
        table.createIndex()
        tables.append(table)
    evaluation = Evaluation(*tables, iouType="bbox", print_function=_silent)
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation.params.areaRng = [list(pair) for pair in AREAS.values()]
    evaluation.params.areaRngLbl = list(AREAS)
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval


def _silent(*_: object, **__: object) -> None:
    pass
