"""Semantic segmentation: one confusion matrix over the whole split, and boundaries.

The mean over batches of a batch's IoU is not the IoU of a split (a class of one image weighs as
much as one of a hundred), so counts are gathered and divided once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ..core.structures import IGNORE

# Boundaries meet within this share of the image's diagonal (Csurka et al., BMVC 2013).
TOLERANCE = 0.0075
RING = 4  # pixels: void no wider than twice this is a ring on a boundary (VOC's has about five)


@dataclass(frozen=True)
class SegmentationScores:
    """What a split came to. Per-class values are NaN for a class without a pixel.

    confusion: int64 [C, C] pixels, rows = truth, columns = prediction; names: by class index;
    iou, accuracy (recall), precision: float64 [C]; boundary_f: float64 [C], or None when it was
    not asked for. The means leave the NaN out.
    """

    names: list[str]
    confusion: np.ndarray
    iou: np.ndarray
    accuracy: np.ndarray
    precision: np.ndarray
    boundary_f: np.ndarray | None = None

    @property
    def pixel_accuracy(self) -> float:
        """Share of the labelled pixels that are right."""
        return float(np.trace(self.confusion) / max(1, self.confusion.sum()))

    def flat(self) -> dict[str, float]:
        """The means by name, as the history and the log take them."""
        values = {
            "mIoU": _mean(self.iou),
            "pixel_accuracy": self.pixel_accuracy,
            "mean_accuracy": _mean(self.accuracy),
        }
        if self.boundary_f is not None:
            values["boundary_F"] = _mean(self.boundary_f)
        return values

    def classes(self) -> dict[str, float]:
        """The IoU of each class that has one, as ``IoU/<class>``, for the history."""
        pairs = zip(self.names, self.iou.tolist())
        return {f"IoU/{name}": value for name, value in pairs if not math.isnan(value)}

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values; NaN becomes None."""
        columns = {"IoU": self.iou, "accuracy": self.accuracy, "precision": self.precision}
        if self.boundary_f is not None:
            columns["boundary_F"] = self.boundary_f
        return {
            **{name: _plain(value) for name, value in self.flat().items()},
            "classes": {
                name: {
                    "pixels": int(self.confusion[i].sum()),
                    **{column: _plain(values[i]) for column, values in columns.items()},
                }
                for i, name in enumerate(self.names)
            },
            "confusion": self.confusion.tolist(),
        }

    def table(self) -> str:
        """Means and classes as lines of text, in per cent."""
        head = "  ".join(f"{name} {100 * value:.1f}" for name, value in self.flat().items())
        width = max(len(name) for name in self.names)
        lines = [f"{'class':<{width}}    IoU  recall  precision"]
        for name, *values in zip(self.names, self.iou, self.accuracy, self.precision):
            shown = [" - " if math.isnan(v) else f"{100 * v:.1f}" for v in values]
            lines.append(f"{name:<{width}}  {shown[0]:>5}  {shown[1]:>6}  {shown[2]:>9}")
        return "\n".join([head, *lines])


class SegmentationMetric:
    """Gathers pixels image by image; ``state`` and ``merge`` join the shares of processes."""

    def __init__(self, names: Sequence[str], boundary: bool = False) -> None:
        self.names = list(names)
        self.confusion = np.zeros((len(names), len(names)), np.int64)
        # Rows: predicted boundary pixels, those near the truth's, the truth's, those near ours.
        self.boundary = np.zeros((4, len(names)), np.int64) if boundary else None

    def update(self, prediction: np.ndarray, truth: np.ndarray) -> None:
        """Count an image: class indices [H, W] of both; pixels where truth is IGNORE are left out.

        Predictions must be below the number of classes.
        """
        classes = len(self.names)
        assert prediction.shape == truth.shape, (prediction.shape, truth.shape)
        known = truth != IGNORE
        rows, columns = truth[known].astype(np.int64), prediction[known].astype(np.int64)
        counts = np.bincount(rows * classes + columns, minlength=classes**2)
        assert len(counts) == classes**2, "a class index beyond the classes"
        self.confusion += counts.reshape(classes, classes)
        if self.boundary is not None:
            self.boundary += _boundary_counts(prediction, truth, classes)

    def state(self) -> tuple[np.ndarray, np.ndarray | None]:
        """What has been counted, for ``merge`` on another process."""
        return self.confusion, self.boundary

    def merge(self, state: tuple[np.ndarray, np.ndarray | None]) -> None:
        """Add what another has counted."""
        self.confusion = self.confusion + state[0]
        if self.boundary is not None and state[1] is not None:
            self.boundary = self.boundary + state[1]

    def compute(self) -> SegmentationScores:
        """The scores of all that was counted."""
        right = np.diag(self.confusion)
        truth, found = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        return SegmentationScores(
            names=self.names,
            confusion=self.confusion,
            iou=_ratio(right, truth + found - right),
            accuracy=_ratio(right, truth),
            precision=_ratio(right, found),
            boundary_f=None if self.boundary is None else _f_scores(self.boundary),
        )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _f_scores(counts: np.ndarray) -> np.ndarray:
    """F1 of boundary precision and recall; NaN for a class with no boundary on either side."""
    found, found_near, truth, truth_near = counts.astype(np.float64)
    precision = np.divide(found_near, found, out=np.zeros_like(found), where=found > 0)
    recall = np.divide(truth_near, truth, out=np.zeros_like(truth), where=truth > 0)
    total = precision + recall
    score = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return np.where(found + truth > 0, score, np.nan)


def _boundary_counts(prediction: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """[4, C] as in ``SegmentationMetric.boundary``."""
    radius = max(1, round(TOLERANCE * math.hypot(*truth.shape)))
    near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    counts = np.zeros((4, classes), np.int64)
    prediction, truth, known = _without_rings(prediction, truth, max(radius, RING))
    for index in np.union1d(np.unique(prediction[known]), np.unique(truth[known])).tolist():
        ours = _boundary(prediction == index, known)
        theirs = _boundary(truth == index, known)
        counts[:, index] = (
            ours.sum(),
            (ours & cv2.dilate(theirs, near)).sum(),
            theirs.sum(),
            (theirs & cv2.dilate(ours, near)).sum(),
        )
    return counts


def _without_rings(
    prediction: np.ndarray, truth: np.ndarray, reach: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both maps with void filled from the nearest labelled pixel, and bool [H, W]: what counts.

    VOC draws a ring of void round every object: the boundary is somewhere in it, and where two
    classes meet in the middle of it after the filling. Void further than ``reach`` pixels from a
    label has no boundary, neither within nor at its rim.
    """
    void = truth == IGNORE
    if not void.any() or void.all():
        return prediction, truth, ~void
    distance, labels = cv2.distanceTransformWithLabels(
        void.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    place = np.zeros(labels.max() + 1, np.int64)  # label -> flat index of its pixel
    place[labels[~void]] = np.flatnonzero(~void)
    nearest = place[labels]
    return prediction.ravel()[nearest], truth.ravel()[nearest], distance <= reach


def _boundary(region: np.ndarray, known: np.ndarray) -> np.ndarray:
    """uint8 [H, W]: known pixels of the region that have a known neighbour (of 4) outside it.

    The edge of the image is no boundary.
    """
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    outside = cv2.dilate((known & ~region).astype(np.uint8), cross)
    return (region & known).astype(np.uint8) & outside
