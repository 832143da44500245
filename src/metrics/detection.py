"""Detection metrics: COCO figures by faster-coco-eval, PASCAL VOC figures, a confusion matrix.

Crowd regions and difficult objects are ignored: what finds them is neither right nor wrong,
what misses them misses nothing. (At most 100 detections an image count, as COCO's rules say;
its code takes 100 of each class.) Crowds by COCO's rule (any number of detections, overlap
measured against the detection), difficult objects by VOC's (IoU, one detection each; further
ones are false). COCO's own files have no difficult objects, so its figures stay the official
ones; on VOC they are slightly higher than those of tools that count difficult objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np

from ..core.structures import Detections
from .boxes import BoxTruth, ImageResult
from .coco import MAX_DETECTIONS, coco_evaluation
from .confusion import confusion_matrix
from .thresholds import best_thresholds, over_scores
from .voc import matched, voc_average_precisions


@dataclass
class DetectionScores:
    """All figures in [0, 1]; nan where nothing defines them (no truth of that kind).

    ``per_class``: name -> (AP at IoU .5:.95, AP at .5), None for classes absent in the truth.
    ``precision``: name -> [101] interpolated precision at recalls 0, .01 .. 1 (IoU .5), ``scores``:
    name -> [101] the score by which each is reached. The rest is there with
    ``compute(full=True)``. ``confusion``: int [C + 1, C + 1], rows = truth,
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
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    voc_ap50_11point: dict[str, float | None] = field(default_factory=dict)
    voc_ap50_area: dict[str, float | None] = field(default_factory=dict)
    confusion: np.ndarray | None = None
    results: list[ImageResult] = field(default_factory=list)  # of each image, in their order

    @property
    def voc_map50_11point(self) -> float:
        """Mean VOC2007 AP (11 points) over the classes of the truth."""
        return _mean(self.voc_ap50_11point)

    @property
    def voc_map50_area(self) -> float:
        """Mean VOC2010 AP (area under the curve) over the classes of the truth."""
        return _mean(self.voc_ap50_area)

    def score_curves(self) -> dict[str, np.ndarray]:
        """name -> [3, 101]: precision, recall and F1 over scores 0, .01 .. 1 (IoU .5)."""
        found = matched(self.results, len(self.classes))
        return {n: over_scores(f) for n, f in zip(self.classes, found) if f.positives}

    def flat(self) -> dict[str, float]:
        """The headline figures that are defined, for a CSV row."""
        names = ("mAP", "mAP50", "mAP75", "small", "medium", "large", "AR100")
        values = {name: float(getattr(self, name)) for name in names}
        if self.voc_ap50_area:
            values["voc_mAP50_11point"] = self.voc_map50_11point
            values["voc_mAP50_area"] = self.voc_map50_area
        return {name: value for name, value in values.items() if value == value}

    def at_threshold(self) -> dict[str, dict[str, float | None]]:
        """name -> precision, recall and F1 of the detections in the confusion matrix, right where
        the class is and IoU is .5 or more; None where there is nothing to be had or found."""
        assert self.confusion is not None
        found, truth = self.confusion.sum(axis=0), self.confusion.sum(axis=1)
        rows: dict[str, dict[str, float | None]] = {}
        for label, name in enumerate(self.classes, start=1):
            right, total = float(self.confusion[label, label]), float(found[label] + truth[label])
            rows[name] = {
                "precision": right / found[label] if found[label] else None,
                "recall": right / truth[label] if truth[label] else None,
                "F1": 2 * right / total if total else None,
            }
        return rows

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
            plain["best_threshold"] = best_thresholds(self.score_curves())
            plain["at_threshold"] = self.at_threshold()
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
        """Replace the results by those of all processes, which took images rank::world: in the
        order of one process, so that equal scores are ranked alike."""
        rounds = zip_longest(*parts)
        self.results = [result for some in rounds for result in some if result is not None]

    def compute(self, full: bool = False, confusion_threshold: float = 0.25) -> DetectionScores:
        """The COCO figures; ``full`` adds VOC AP, precision curves and the confusion matrix (of
        detections that score ``confusion_threshold`` or more)."""
        evaluation = coco_evaluation(self.results, len(self.classes))
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
            results=self.results,
            truths=sum(len(result.truth.labels) for result in self.results),
        )
        there = [(i, name) for i, name in enumerate(self.classes) if each[i] is not None]
        reached = evaluation["scores"][0, :, :, 0, -1]
        scores.precision = {name: np.asarray(precision[0, :, i, 0]) for i, name in there}
        scores.scores = {name: np.asarray(reached[:, i]) for i, name in there}
        if full:
            points, areas = voc_average_precisions(matched(self.results, len(self.classes)))
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
