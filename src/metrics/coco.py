"""COCO's evaluation by faster-coco-eval (https://github.com/MiXaiLL76/faster_coco_eval)."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from typing import Any

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
        flags: dict[str, Any] = {
            "iscrowd": truth.flags("crowd").astype(int),
            "difficult": truth.flags("difficult"),
        }
        own: dict[str, Any] = {"score": result.scores}
        if result.masks is not None:
            own["segmentation"], flags["segmentation"] = result.masks, truth.masks
        _append(truths, image, truth.boxes, truth.labels, truth.areas, flags)
        _append(found, image, result.boxes, result.labels, result.areas, own)
    return truths, found


def _append(
    rows: list[dict],
    image: int,
    boxes: np.ndarray,
    labels: np.ndarray,
    areas: np.ndarray | None,
    columns: dict[str, Any],
) -> None:
    """A dict for each box; ids start at 1 (0 means unmatched)."""
    corners = _xywh(boxes)
    if areas is None:
        areas = corners[:, 2] * corners[:, 3]
    columns = {"bbox": corners, "category_id": labels, "area": areas, **columns}
    keys = ("id", "image_id", *columns)
    start = len(rows) + 1
    lists = (c if isinstance(c, list) else np.asarray(c).tolist() for c in columns.values())
    for number, values in enumerate(zip(*lists)):
        rows.append(dict(zip(keys, (start + number, image, *values))))


def _xywh(boxes: np.ndarray) -> np.ndarray:
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def coco_evaluation(results: Sequence[ImageResult], classes: int) -> dict[str, np.ndarray]:
    """faster-coco-eval's accumulated arrays (https://github.com/MiXaiLL76/faster_coco_eval): of
    masks where the results have them, else of boxes."""
    truths, found = _annotations(results)
    if not truths:
        return {
            "precision": np.full((10, 101, classes, 4, 1), -1.0),
            "scores": np.full((10, 101, classes, 4, 1), -1.0),
            "recall": np.full((10, classes, 4, 1), -1.0),
        }
    kind = "bbox" if results[0].masks is None else "segm"
    images = [{"id": image, **_size(one)} for image, one in enumerate(results, start=1)]
    with contextlib.redirect_stdout(io.StringIO()):
        return _evaluate(truths, found, images, classes, kind)


def _size(result: ImageResult) -> dict[str, int]:
    """The size of an image whose masks are scored; none where it has no mask at all."""
    masks = [*(result.masks or []), *(result.truth.masks or [])]
    return dict(zip(("height", "width"), masks[0]["size"])) if masks else {}


def _evaluate(
    truths: list[dict], found: list[dict], images: list[dict], classes: int, kind: str
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
        "images": images,
        "categories": [{"id": label, "name": str(label)} for label in range(1, classes + 1)],
    }
    tables = []
    for rows in (truths, found):
        table = COCO()
        table.dataset = {**common, "annotations": rows}
        table.createIndex()
        tables.append(table)
    evaluation = Evaluation(*tables, iouType=kind, print_function=_silent)
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation.params.areaRng = [list(pair) for pair in AREAS.values()]
    evaluation.params.areaRngLbl = list(AREAS)
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval


def _silent(*_: object, **__: object) -> None:
    pass
