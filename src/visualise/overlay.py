"""Heat maps, masks and marks over images (RGB, uint8 [H, W, 3])."""

from __future__ import annotations

import cv2
import numpy as np

from .draw import colour


def to_pixels(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """float [h, w] or [h, w, K] in cells -> [height, width(, K)] in pixels, bilinear."""
    return cv2.resize(
        np.ascontiguousarray(values, dtype=np.float32), (width, height),
        interpolation=cv2.INTER_LINEAR,
    )  # fmt: skip


def heat_map(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """float [H, W] -> RGB uint8: black and violet at ``low``, yellow at ``high`` (inferno)."""
    scaled = (values - low) / max(high - low, 1e-12)
    levels = (np.clip(scaled, 0, 1) * 255).round().astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


def heat_overlay(
    image: np.ndarray, values: np.ndarray, low: float, high: float, alpha: float = 0.65
) -> np.ndarray:
    """The image in grey below the heat map of ``values`` [h, w] in cells."""
    height, width = image.shape[:2]
    heat = heat_map(to_pixels(values, height, width), low, high)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(heat, alpha, grey, 1 - alpha, 0)


def mark_point(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """A copy with a ring around the point, visible on light and on dark ground."""
    canvas = image.copy()
    radius = max(6, round(min(image.shape[:2]) / 30))
    centre = (round(x), round(y))
    cv2.circle(canvas, centre, radius, (0, 0, 0), 4, cv2.LINE_AA)
    cv2.circle(canvas, centre, radius, (255, 255, 255), 2, cv2.LINE_AA)
    return canvas


def mask_overlay(image: np.ndarray, labels: np.ndarray, alpha: float = 0.5) -> np.ndarray:
    """A copy with each label of ``labels`` (int [H, W], 0 the background) tinted and outlined."""
    canvas = image.copy()
    for label in np.unique(labels[labels > 0]).tolist():
        inside = labels == label
        tint = np.array(colour(label), np.float32)
        canvas[inside] = (canvas[inside] * (1 - alpha) + tint * alpha).round().astype(np.uint8)
        outlines, _ = cv2.findContours(
            inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(canvas, outlines, -1, (255, 255, 255), 1)
    return canvas
