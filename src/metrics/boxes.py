"""Overlap of boxes in numpy."""

from __future__ import annotations

import numpy as np


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
