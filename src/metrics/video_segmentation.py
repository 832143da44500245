"""J and F of masks along a video, as DAVIS measures them.

F. Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation,
CVPR 2016; https://github.com/davisvideochallenge/davis2017-evaluation (metrics.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ..core.structures import IGNORE


def region_iou(predicted: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None) -> float:
    """J: intersection over union of two bool masks [H, W]; 1 when both are empty.

    void: pixels that do not count.
    """
    valid = np.ones(truth.shape, bool) if void is None else ~void
    union = ((predicted | truth) & valid).sum()
    return 1.0 if union == 0 else float((predicted & truth & valid).sum() / union)


def boundary(mask: np.ndarray) -> np.ndarray:
    """bool [H, W]: pixels that differ from their neighbour to the right, below or diagonally."""
    m = mask.astype(bool)
    east, south, both = m.copy(), m.copy(), m.copy()
    east[:, :-1] = m[:, 1:]
    south[:-1] = m[1:]
    both[:-1, :-1] = m[1:, 1:]
    edge = (m ^ east) | (m ^ south) | (m ^ both)
    edge[-1] = m[-1] ^ east[-1]
    edge[:, -1] = m[:, -1] ^ south[:, -1]
    edge[-1, -1] = False
    return edge


def boundary_f(
    predicted: np.ndarray,
    truth: np.ndarray,
    void: np.ndarray | None = None,
    tolerance: float = 0.008,
) -> float:
    """F: harmonic mean of precision and recall of the boundary pixels of two bool masks.

    A pixel is right within ``tolerance`` times the image's diagonal (below 1: a share; else
    pixels), rounded up. Both boundaries empty: 1; one of them: 0.
    """
    valid = np.ones(truth.shape, bool) if void is None else ~void
    ours, theirs = boundary(predicted & valid), boundary(truth & valid)
    reach = tolerance if tolerance >= 1 else math.ceil(tolerance * math.hypot(*truth.shape))
    radius = int(reach)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x**2 + y**2 <= radius**2).astype(np.uint8)
    near_theirs = cv2.dilate(theirs.astype(np.uint8), disk) > 0
    near_ours = cv2.dilate(ours.astype(np.uint8), disk) > 0
    count, true_count = int(ours.sum()), int(theirs.sum())
    if count == 0 and true_count == 0:
        return 1.0
    if count == 0 or true_count == 0:
        return 0.0
    precision = float((ours & near_theirs).sum()) / count
    recall = float((theirs & near_ours).sum()) / true_count
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


@dataclass(frozen=True)
class ObjectScores:
    """One object along the video: mean, recall (share of frames above 0.5) of J and of F."""

    j: float
    j_recall: float
    f: float
    f_recall: float


@dataclass(frozen=True)
class VideoScores:
    """Means over the objects; objects: label -> its own. jf is the mean of j and f."""

    j: float
    f: float
    objects: dict[int, ObjectScores]

    @property
    def jf(self) -> float:
        """J&F."""
        return (self.j + self.f) / 2

    def plain_objects(self) -> dict[str, dict[str, float]]:
        """The objects as JSON can hold them."""
        return {str(label): dict(vars(scores)) for label, scores in self.objects.items()}


def video_scores(predicted: np.ndarray, truth: np.ndarray) -> VideoScores:
    """J and F of label maps [T, H, W] (0 background; 255 in the truth: left out of account).

    Objects are the labels of the truth; each counts the same. DAVIS leaves out the frame whose
    mask was given (the first) and, by habit, the last: hand in what is to be measured.
    """
    assert predicted.shape == truth.shape and truth.ndim == 3
    labels = [int(label) for label in np.unique(truth) if 0 < label < IGNORE]
    assert labels, "no object in the truth"
    objects = {}
    for label in labels:
        j, f = [], []
        for ours, theirs in zip(predicted, truth):
            void = theirs == IGNORE
            j.append(region_iou(ours == label, theirs == label, void))
            f.append(boundary_f(ours == label, theirs == label, void))
        recalls = [float((np.array(v) > 0.5).mean()) for v in (j, f)]
        objects[label] = ObjectScores(float(np.mean(j)), recalls[0], float(np.mean(f)), recalls[1])
    means = [float(np.mean([getattr(o, name) for o in objects.values()])) for name in ("j", "f")]
    return VideoScores(means[0], means[1], objects)
