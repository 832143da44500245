"""Truth and detections of an image as numpy arrays, and the overlap of boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class BoxTruth:
    """The truth of one image, in pixels of the original image.

    boxes: float [N, 4] xyxy; labels: int [N] from 1; difficult, crowd: bool [N] (None: none
    is); areas: float [N] object areas that sort into small, medium and large (COCO's are those
    of the masks; None: of the boxes); masks: compressed run lengths of each, as pycocotools has
    them, where masks are scored.
    """

    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray | None = None
    crowd: np.ndarray | None = None
    areas: np.ndarray | None = None
    masks: list[dict[str, Any]] | None = None

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
    masks: list[dict[str, Any]] | None = None  # as those of the truth
    areas: np.ndarray | None = None  # float [D], of the masks

    def overlap(self, found: np.ndarray, truth: np.ndarray | None = None) -> np.ndarray:
        """IoU [d, t] of detections and truths (bool masks; None: all, and for crowds the share of
        the detection that they cover): of their masks where they have some, else their boxes."""
        crowd = self.truth.flags("crowd") if truth is None else None
        there = np.ones(len(self.truth.labels), bool) if truth is None else truth
        if self.masks is None or self.truth.masks is None:
            boxes = np.asarray(self.truth.boxes).reshape(-1, 4)
            return pairwise_iou(self.boxes[found], boxes[there], crowd)
        from faster_coco_eval.core import mask as coco

        mine = [self.masks[i] for i in np.flatnonzero(found)]
        theirs = [self.truth.masks[i] for i in np.flatnonzero(there)]
        if not mine or not theirs:
            return np.zeros((len(mine), len(theirs)))
        flags = [0] * len(theirs) if crowd is None else crowd.astype(int).tolist()
        return np.asarray(coco.iou(mine, theirs, flags))


def pairwise_iou(a: np.ndarray, b: np.ndarray, crowd: np.ndarray | None = None) -> np.ndarray:
    """IoU of boxes xyxy [N, 4] and [M, 4] -> [N, M]; for crowd columns (bool [M]) the share of
    the first box that the second covers, as COCO has it."""
    a = np.asarray(a, np.float64).reshape(-1, 4)
    b = np.asarray(b, np.float64).reshape(-1, 4)
    corner = np.maximum(a[:, None, :2], b[None, :, :2])
    opposite = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inside = np.clip(opposite - corner, 0, None).prod(axis=2)
    area_a, area_b = (np.clip(x[:, 2:] - x[:, :2], 0, None).prod(axis=1) for x in (a, b))
    union = area_a[:, None] + area_b[None] - inside
    if crowd is not None:
        union = np.where(crowd[None], area_a[:, None], union)
    return inside / np.maximum(union, 1e-12)
