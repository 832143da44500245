"""The confusion matrix of a detector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .boxes import ImageResult


def confusion_matrix(
    results: Sequence[ImageResult], classes: int, threshold: float, iou_threshold: float = 0.5
) -> np.ndarray:
    """int64 [C + 1, C + 1]: rows = truth, columns = detected, 0 = background.

    Boxes are paired whatever their class, the pairs of greatest IoU first. A truth without a
    partner counts in column 0, a detection without one in row 0, unless it lies on a difficult
    or crowd object.
    """
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    for result in results:
        keep = result.scores >= threshold
        found_labels = result.labels[keep]
        truth = result.truth
        ignored = truth.flags("crowd") | truth.flags("difficult")
        labels = np.asarray(truth.labels)
        iou = result.overlap(keep)
        pairs = _pairs(np.where(ignored[None], 0.0, iou), iou_threshold)
        matched_found = np.zeros(len(found_labels), bool)
        matched_truth = ignored.copy()
        for detection, target in pairs:
            matrix[labels[target], found_labels[detection]] += 1
            matched_found[detection] = matched_truth[target] = True
        if ignored.any():
            matched_found |= (iou[:, ignored] >= iou_threshold).any(axis=1)
        matrix[0] += np.bincount(found_labels[~matched_found], minlength=classes + 1)
        matrix[:, 0] += np.bincount(labels[~matched_truth], minlength=classes + 1)
    return matrix


def image_errors(
    result: ImageResult, threshold: float, iou_threshold: float = 0.5
) -> dict[str, int]:
    """What is wrong with an image's detections that score ``threshold`` or more: objects, right,
    confused (placed well, of another class), misplaced (of an object's class, at IoU .1 to
    ``iou_threshold``, where nothing better is there), false (the rest), missed (objects neither
    right nor confused nor misplaced), and errors, the sum of these four."""
    keep = result.scores >= threshold
    kinds = result.labels[keep]
    truth, labels = result.truth, np.asarray(result.truth.labels)
    ignored = truth.flags("crowd") | truth.flags("difficult")
    iou = result.overlap(keep)
    free = np.all(iou[:, ignored] < iou_threshold, axis=1)  # what finds these is neither
    open_iou = np.where(ignored[None], 0.0, iou)
    pairs = _pairs(open_iou, iou_threshold)
    right = sum(int(kinds[d] == labels[t]) for d, t in pairs)
    left, gone = np.ones(len(kinds), bool), np.ones(len(labels), bool)
    for d, t in pairs:
        left[d] = gone[t] = False
    near = open_iou * left[:, None] * gone[None] * (kinds[:, None] == labels[None])
    misplaced = _pairs(near, 0.1)
    false = int((left & free).sum()) - sum(int(free[d]) for d, _ in misplaced)
    errors = {
        "confused": len(pairs) - right,
        "misplaced": len(misplaced),
        "false": false,
        "missed": int((gone & ~ignored).sum()) - len(misplaced),
    }
    total = {"errors": sum(errors.values()), "objects": int((~ignored).sum()), "right": right}
    return {**total, **errors}


def _pairs(iou: np.ndarray, threshold: float) -> list[tuple[int, int]]:
    """One-to-one pairs (row, column) of at least the threshold, the greatest first."""
    rows, columns = np.nonzero(iou >= threshold)
    order = np.argsort(-iou[rows, columns], kind="stable")
    used_rows: set[int] = set()
    used_columns: set[int] = set()
    pairs = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist()):
        if row not in used_rows and column not in used_columns:
            used_rows.add(row)
            used_columns.add(column)
            pairs.append((row, column))
    return pairs
