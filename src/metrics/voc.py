"""Average precision by the protocol of PASCAL VOC (IoU .5).

As the development kit has it (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ VOCevaldet.m):
a detection belongs to the object of its class that it overlaps most; the first one there is
right, further ones are wrong, those of difficult (here also crowd) objects do not count. The
kit's boxes include their last pixel; ours end before it (see core.structures), which is the same
box.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .boxes import ImageResult

IOU = 0.5


class Matched(NamedTuple):
    """Detections of one class over all images, best first: score [D], right [D] (bool); positives:
    objects that count."""

    score: np.ndarray
    right: np.ndarray
    positives: int


def matched(results: Sequence[ImageResult], classes: int) -> list[Matched]:
    """Of each label 1..classes what was found, right or not."""
    scores: list[list[np.ndarray]] = [[] for _ in range(classes + 1)]
    rights: list[list[np.ndarray]] = [[] for _ in range(classes + 1)]
    positives = np.zeros(classes + 1, np.int64)
    for result in results:
        truth = result.truth
        truth_labels = np.asarray(truth.labels)
        ignored = truth.flags("difficult") | truth.flags("crowd")
        positives += np.bincount(truth_labels[~ignored], minlength=classes + 1)
        for label in np.unique(result.labels):
            mine, there = result.labels == label, truth_labels == label
            iou = result.overlap(mine, there)
            right, counts = _match(iou, ignored[there])
            scores[label].append(result.scores[mine][counts])
            rights[label].append(right[counts])
    found = []
    for label in range(1, classes + 1):
        score = np.concatenate([*scores[label], np.zeros(0)])
        right = np.concatenate([*rights[label], np.zeros(0, bool)]).astype(bool)
        order = np.argsort(-score, kind="stable")
        found.append(Matched(score[order], right[order], int(positives[label])))
    return found


def voc_average_precisions(
    found: Sequence[Matched],
) -> tuple[list[float | None], list[float | None]]:
    """(11-point AP, area AP) of each class; None for one without a truth that counts."""
    points: list[float | None] = []
    areas: list[float | None] = []
    for _, right, positives in found:
        if positives == 0:
            points.append(None)
            areas.append(None)
            continue
        precision = np.cumsum(right) / np.arange(1, len(right) + 1)
        recall = np.cumsum(right) / positives
        points.append(eleven_point(recall, precision))
        areas.append(area(recall, precision))
    return points, areas


def _match(iou: np.ndarray, ignored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of detections [D] (best first) by their IoU [D, T]: right [D], counts at all [D]."""
    right, counts = np.zeros(len(iou), bool), np.ones(len(iou), bool)
    if iou.shape[1] == 0:
        return right, counts
    taken = np.zeros(iou.shape[1], bool)
    nearest = iou.argmax(axis=1)
    for detection in np.flatnonzero(iou.max(axis=1) >= IOU):
        target = nearest[detection]
        if ignored[target]:
            counts[detection] = False
        elif not taken[target]:
            right[detection] = taken[target] = True
    return right, counts


def eleven_point(recall: np.ndarray, precision: np.ndarray) -> float:
    """VOC2007: the mean over recalls 0, .1 .. 1 of the best precision at that recall or more."""
    # The tolerance keeps e.g. a recall of 3/10 at the point 0.3.
    best = [precision[recall >= at - 1e-9] for at in np.linspace(0, 1, 11)]
    return float(np.mean([values.max() if values.size else 0.0 for values in best]))


def area(recall: np.ndarray, precision: np.ndarray) -> float:
    """VOC2010 and later: the area under the precision made monotonic."""
    recall = np.concatenate([[0.0], recall, [1.0]])
    precision = np.concatenate([[0.0], precision, [0.0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(((recall[1:] - recall[:-1]) * precision[1:]).sum())
