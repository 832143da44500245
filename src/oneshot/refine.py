"""From scores in patches to labels in pixels."""

from __future__ import annotations

import cv2
import numpy as np

from ..visualise.overlay import to_pixels

WORK_SIDE = 480  # GrabCut's price grows with the pixels; edges are found well at this size


def pixel_scores(scores: np.ndarray, height: int, width: int) -> np.ndarray:
    """Probabilities [K, h, w] in cells -> float32 [K, height, width] in pixels."""
    return np.stack([to_pixels(plane, height, width) for plane in scores])


def grabcut(image: np.ndarray, inside: np.ndarray, cell: float) -> np.ndarray:
    """A rough mask drawn to the edges of the image: bool [H, W] -> bool [H, W].

    Further than about a patch (``cell`` pixels) from the rough border the mask stays as it is;
    between, a graph cut decides by colour models of both sides and by edges. C. Rother et al.,
    GrabCut, 2004, by OpenCV (https://docs.opencv.org/4.x/d8/d83/tutorial_py_grabcut.html).
    """
    if not inside.any() or inside.all():
        return inside
    height, width = inside.shape
    scale = min(1.0, WORK_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    rough = cv2.resize(inside.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    reach = max(1.0, cell * scale)
    to_border = cv2.distanceTransform(rough, cv2.DIST_L2, 3)
    outside = cv2.distanceTransform(1 - rough, cv2.DIST_L2, 3)
    deepest = min(float(to_border.max()), reach)
    trimap = np.where(rough > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    trimap[to_border >= max(deepest, 1)] = cv2.GC_FGD
    trimap[outside > reach] = cv2.GC_BGD
    if not (trimap == cv2.GC_BGD).any() and not (trimap == cv2.GC_PR_BGD).any():
        return inside
    cv2.setRNGSeed(0)  # its colour models start from a k-means
    try:
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(small, trimap, None, *models, 3, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    except cv2.error:  # too few pixels of one side for its colour model
        return inside
    cut = ((trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)).astype(np.float32)
    return to_pixels(cut, height, width) > 0.5


def refine_labels(image: np.ndarray, scores: np.ndarray, method: str) -> np.ndarray:
    """Probabilities [K, h, w] in cells, plane 0 the background -> plane numbers uint8 [H, W].

    method: "grabcut" (each object against all the rest, the largest last so that small ones
    stay on top) or "none" (the best plane of the upsampled ones).
    """
    height, width = image.shape[:2]
    best = pixel_scores(scores, height, width).argmax(0).astype(np.uint8)
    if method == "none":
        return best
    cell = max(height / scores.shape[1], width / scores.shape[2])
    labels = np.zeros_like(best)
    planes = [int(p) for p in np.unique(best) if p > 0]
    for plane in sorted(planes, key=lambda p: int((best == p).sum()), reverse=True):
        cut = grabcut(image, best == plane, cell)
        labels[cut & ((best == plane) | (best == 0))] = plane
    return labels
