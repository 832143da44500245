"""Detection metrics: COCO figures by faster-coco-eval, PASCAL VOC figures, a confusion matrix.

Crowd regions and difficult objects are ignored: what finds them is neither right nor wrong,
what misses them misses nothing. (At most 100 detections an image count, as COCO's rules say;
its code takes 100 of each class.) Crowds by COCO's rule (any number of detections, overlap
measured against the detection), difficult objects by VOC's (IoU, one detection each; further
ones are false). COCO's own files have no difficult objects, so its figures stay the official
ones; on VOC they are slightly higher than those of tools that count difficult objects.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from src.core.structures import Detections
from src.metrics.confusion import confusion_matrix
from src.metrics.voc import voc_average_precisions

MAX_DETECTIONS = 100
AREAS = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}


@dataclass(frozen=True)
class BoxTruth:
    """The truth of one image, in pixels of the original image.

    boxes: float [N, 4] xyxy; labels: int [N] from 1; difficult, crowd: bool [N] (None: none
    is); areas: float [N] object areas that sort into small, medium and large (COCO's are those
    of the masks; None: of the boxes).
    """

    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray | None = None
    crowd: np.ndarray | None = None
    areas: np.ndarray | None = None

    def flags(self, name: str) -> np.ndarray:
        """``difficult`` or ``crowd`` as bool [N]."""
        value = getattr(self, name)
        return np.zeros(len(self.labels), bool) if value is None else np.asarray(value, bool)


@dataclass(frozen=True)
class ImageResult:
    """Detections (best first, at most 100) and truth of one image, as numpy arrays."""

    boxes: np.ndarray  # float64 [D, 4] xyxy
    scores: np.ndarray  # float64 [D]
    labels: np.ndarray  # int64 [D]
    truth: BoxTruth


@dataclass
class DetectionScores:
    """All figures in [0, 1]; nan where nothing defines them (no truth of that kind).

    ``per_class``: name -> (AP at IoU .5:.95, AP at .5), None for classes absent in the truth.
    The rest is there with ``compute(full=True)``. ``precision``: name -> [101] interpolated
    precision at recalls 0, .01 .. 1 (IoU .5). ``confusion``: int [C + 1, C + 1], rows = truth,
    columns = detected, background first.
    """

    classes: list[str]
    mAP: float  # noqa: N815 - the word everybody uses
    mAP50: float  # noqa: N815
    mAP75: float  # noqa: N815
    small: float
    medium: float
    large: float
    AR100: float
    per_class: dict[str, tuple[float, float] | None]
    images: int = 0
    truths: int = 0
    precision: dict[str, np.ndarray] = field(default_factory=dict)
    voc_ap50_11point: dict[str, float | None] = field(default_factory=dict)
    voc_ap50_area: dict[str, float | None] = field(default_factory=dict)
    confusion: np.ndarray | None = None

    @property
    def voc_map50_11point(self) -> float:
        """Mean VOC2007 AP (11 points) over the classes of the truth."""
        return _mean(self.voc_ap50_11point)

    @property
    def voc_map50_area(self) -> float:
        """Mean VOC2010 AP (area under the curve) over the classes of the truth."""
        return _mean(self.voc_ap50_area)

    def flat(self) -> dict[str, float]:
        """The headline figures that are defined, for a CSV row."""
        names = ("mAP", "mAP50", "mAP75", "small", "medium", "large", "AR100")
        values = {name: float(getattr(self, name)) for name in names}
        if self.voc_ap50_area:
            values["voc_mAP50_11point"] = self.voc_map50_11point
            values["voc_mAP50_area"] = self.voc_map50_area
        return {name: value for name, value in values.items() if value == value}

    def to_plain(self) -> dict[str, Any]:
        """Everything as JSON values (None for what is not defined)."""
        named = ("mAP", "mAP50", "mAP75", "small", "medium", "large", "AR100")
        flat = self.flat()
        plain: dict[str, Any] = {name: flat.get(name) for name in named}
        plain["per_class"] = {
            name: None if pair is None else {"AP": pair[0], "AP50": pair[1]}
            for name, pair in self.per_class.items()
        }
        plain |= {"images": self.images, "truths": self.truths}
        if self.voc_ap50_area:
            plain["voc_mAP50_11point"] = flat.get("voc_mAP50_11point")
            plain["voc_mAP50_area"] = flat.get("voc_mAP50_area")
            plain["voc_AP50_11point"] = self.voc_ap50_11point
            plain["voc_AP50_area"] = self.voc_ap50_area
        if self.confusion is not None:
            plain["confusion"] = {
                "classes": ["background", *self.classes],
                "rows_truth_columns_detected": self.confusion.tolist(),
            }
        return plain


def _mean(values: dict[str, float | None]) -> float:
    known = [value for value in values.values() if value is not None]
    return float(np.mean(known)) if known else float("nan")


class DetectionMetric:
    """Collects detections and truths of images; ``compute()`` scores them.

    classes: names by label; a leading ``__background__`` is the 0 that no box has. For several
    processes: ``merge(gather_objects(metric.results))``.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        names = list(classes)
        self.classes = names[1:] if names and names[0] == "__background__" else names
        self.results: list[ImageResult] = []

    def update(self, predictions: Sequence[Detections], truths: Sequence[BoxTruth]) -> None:
        """Add images: detections and truth in pixels of the original image."""
        assert len(predictions) == len(truths)
        for found, truth in zip(predictions, truths):
            scores = found["scores"].detach().cpu().double().numpy()
            best = np.argsort(-scores, kind="stable")[:MAX_DETECTIONS]
            boxes = found["boxes"].detach().cpu().double().numpy().reshape(-1, 4)
            labels = found["labels"].detach().cpu().numpy().astype(np.int64)
            self.results.append(ImageResult(boxes[best], scores[best], labels[best], truth))

    def merge(self, parts: Sequence[list[ImageResult]]) -> None:
        """Replace the results by those of all processes."""
        self.results = [result for part in parts for result in part]

    def compute(self, full: bool = False, confusion_threshold: float = 0.25) -> DetectionScores:
        """The COCO figures; ``full`` adds VOC AP, precision curves and the confusion matrix (of
        detections that score ``confusion_threshold`` or more)."""
        evaluation = _coco_evaluation(self.results, len(self.classes))
        precision, recall = evaluation["precision"][..., -1], evaluation["recall"][..., -1]
        # precision: [10 IoUs, 101 recalls, C, 4 areas]; recall: [10 IoUs, C, 4 areas]; -1 = none
        each = [
            None
            if (precision[:, :, label, 0] < 0).all()
            else (_known(precision[:, :, label, 0]), _known(precision[0, :, label, 0]))
            for label in range(len(self.classes))
        ]
        scores = DetectionScores(
            classes=self.classes,
            mAP=_known(precision[..., 0]),
            mAP50=_known(precision[0, ..., 0]),
            mAP75=_known(precision[5, ..., 0]),
            small=_known(precision[..., 1]),
            medium=_known(precision[..., 2]),
            large=_known(precision[..., 3]),
            AR100=_known(recall[..., 0]),
            per_class=dict(zip(self.classes, each)),
            images=len(self.results),
            truths=sum(len(result.truth.labels) for result in self.results),
        )
        if full:
            scores.precision = {
                name: np.asarray(precision[0, :, label, 0])
                for label, name in enumerate(self.classes)
                if each[label] is not None
            }
            points, areas = voc_average_precisions(self.results, len(self.classes))
            scores.voc_ap50_11point = dict(zip(self.classes, points))
            scores.voc_ap50_area = dict(zip(self.classes, areas))
            scores.confusion = confusion_matrix(
                self.results, len(self.classes), confusion_threshold
            )
        return scores


def _known(values: np.ndarray) -> float:
    """The mean of the entries that are defined (not -1)."""
    values = values[values > -1]
    return float(values.mean()) if values.size else float("nan")


def _annotations(results: Sequence[ImageResult]) -> tuple[list[dict], list[dict]]:
    """(truths, detections) as COCO annotation dicts; ids start at 1 (0 means unmatched)."""
    truths: list[dict] = []
    found: list[dict] = []
    for image, result in enumerate(results, start=1):
        truth = result.truth
        boxes = _xywh(truth.boxes)
        areas = boxes[:, 2] * boxes[:, 3] if truth.areas is None else np.asarray(truth.areas)
        columns = (
            boxes.tolist(),
            np.asarray(truth.labels).tolist(),
            areas.tolist(),
            truth.flags("crowd").tolist(),
            truth.flags("difficult").tolist(),
        )
        for box, label, area, crowd, difficult in zip(*columns):
            truths.append(
                {
                    "id": len(truths) + 1,
                    "image_id": image,
                    "category_id": label,
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(crowd),
                    "difficult": difficult,
                }
            )
        boxes = _xywh(result.boxes)
        areas = boxes[:, 2] * boxes[:, 3]
        columns = (boxes.tolist(), result.labels.tolist(), areas.tolist(), result.scores.tolist())
        for box, label, area, score in zip(*columns):
            found.append(
                {
                    "id": len(found) + 1,
                    "image_id": image,
                    "category_id": label,
                    "bbox": box,
                    "area": area,
                    "iscrowd": 0,
                    "score": score,
                }
            )
    return truths, found


def _xywh(boxes: np.ndarray) -> np.ndarray:
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _coco_evaluation(results: Sequence[ImageResult], classes: int) -> dict[str, np.ndarray]:
    """faster-coco-eval's accumulated arrays (https://github.com/MiXaiLL76/faster_coco_eval)."""
    truths, found = _annotations(results)
    if not truths:
        return {
            "precision": np.full((10, 101, classes, 4, 1), -1.0),
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
    for annotations in (truths, found):
        table = COCO()
        table.dataset = {**common, "annotations": annotations}
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
