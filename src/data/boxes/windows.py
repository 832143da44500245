"""Windows: a part of an image, or the image with room around it, as the model's input.

Every geometric choice of the augmentations but the flip and strong's rotation is one window: a
rectangle in the image's pixels, which may reach beyond it (zoom-out) or cut it (crop). It is
rendered in a single resize straight to the wanted size, so that no large canvas is ever made.
"""

from __future__ import annotations

import cv2
import numpy as np

from ...core.structures import Size
from ..common import images
from .distortion import FILL, LEAST_SIDE

_TRIES = 50


def render(
    image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, window: np.ndarray, out: Size
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut the window [left, top, right, bottom] out and resize it to ``out``; what it has beyond
    the image is filled. Boxes follow, clipped; those whose centre is outside go."""
    height, width = image.shape[:2]
    x = _Axis(window[0], window[2], width, out.width)
    y = _Axis(window[1], window[3], height, out.height)
    part = image[y.source, x.source]
    part, _ = images.resize(part, Size(x.length, y.length), "stretch")
    if (x.length, y.length) != tuple(out):
        part = cv2.copyMakeBorder(
            part,
            y.target.start,
            out.height - y.target.stop,
            x.target.start,
            out.width - x.target.stop,
            cv2.BORDER_CONSTANT,
            value=FILL,
        )
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centres > (x.low, y.low)) & (centres < (x.high, y.high))).all(axis=1)
    moved = boxes * np.asarray([x.scale, y.scale] * 2, np.float32) + np.asarray(
        [x.shift, y.shift] * 2, np.float32
    )
    moved = moved.clip(0, np.asarray([*out, *out], np.float32))
    keep = inside & (moved[:, 2:] - moved[:, :2] >= LEAST_SIDE).all(axis=1)
    return part, moved[keep], labels[keep]


def bounds_of(low: float, high: float, limit: int) -> tuple[int, int]:
    """One axis of a window in whole pixels, with at least one of the image's ``limit``."""
    first = min(round(low), limit - 1)
    return first, max(round(high), first + 1, 1)


class _Axis:
    """One axis of a window: which pixels of the image land on which pixels of the output."""

    def __init__(self, start_at: float, stop_at: float, limit: int, out: int) -> None:
        low, high = bounds_of(start_at, stop_at, limit)
        self.low, self.high = low, high
        first, last = max(low, 0), min(high, limit)
        assert first < last, "the window misses the image"
        factor = out / (high - low)
        start = min(round((first - low) * factor), out - 1)
        stop = max(start + 1, min(out, round((last - low) * factor)))
        self.source, self.target = slice(first, last), slice(start, stop)
        self.length = stop - start
        # Exactly what the rounded resize does, so that boxes and pixels move as one.
        self.scale = self.length / (last - first)
        self.shift = start - first * self.scale


def widened(window: np.ndarray, out: Size) -> np.ndarray:
    """The least window around ``window`` with the aspect ratio of ``out``."""
    sides = window[2:] - window[:2]
    wanted = np.array(out) * (sides / out).max()
    middle = (window[:2] + window[2:]) / 2
    return np.concatenate([middle - wanted / 2, middle + wanted / 2])


def zoom_out(window: np.ndarray, most: float, rng: np.random.Generator) -> np.ndarray:
    """A window up to ``most`` times as wide and high, with the image anywhere in it."""
    width, height = window[2:] - window[:2]
    ratio = rng.uniform(1, most)
    left = -rng.uniform(0, width * (ratio - 1))
    top = -rng.uniform(0, height * (ratio - 1))
    return np.array([left, top, left + width * ratio, top + height * ratio])


def iou_crop(
    window: np.ndarray, boxes: np.ndarray, image: Size, rng: np.random.Generator
) -> np.ndarray:
    """A part of the window: sides 0.3 to 1, aspect 0.5 to 2, and an IoU of a drawn least value
    with some box whose centre it holds. Without boxes, any part that meets the image."""
    least = rng.choice([-1.0, 0.0, 0.1, 0.3, 0.5, 0.7, 0.9])
    if least < 0:
        return window
    width, height = window[2:] - window[:2]
    sides = rng.uniform(0.3, 1.0, (_TRIES, 2)) * (width, height)
    corners = window[:2] + rng.uniform(0, 1, (_TRIES, 2)) * ((width, height) - sides)
    crops = np.concatenate([corners, corners + sides], axis=1)
    aspect = sides[:, 0] / sides[:, 1] / (width / height)
    good = (aspect > 0.5) & (aspect < 2) & (sides >= 8).all(axis=1)
    if len(boxes):
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        held = (centres > crops[:, None, :2]) & (centres < crops[:, None, 2:])
        overlap = _iou(crops, boxes) * held.all(axis=2)
        good &= (held.all(axis=2) & (overlap >= least)).any(axis=1)
    else:
        good &= (crops[:, :2] < image).all(axis=1) & (crops[:, 2:] > 0).all(axis=1)
    chosen = np.flatnonzero(good)
    return crops[chosen[0]] if len(chosen) else window


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU [N, M] of boxes [N, 4] and [M, 4]."""
    low = np.maximum(a[:, None, :2], b[:, :2])
    high = np.minimum(a[:, None, 2:], b[:, 2:])
    sides = (high - low).clip(0)
    shared = sides[..., 0] * sides[..., 1]
    areas = [(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) for boxes in (a, b)]
    return shared / np.maximum(areas[0][:, None] + areas[1] - shared, 1e-9)


def scale_jitter(
    size: Size, out: Size, low: float, high: float, rng: np.random.Generator
) -> np.ndarray:
    """A window of ``out``'s shape that shows the image ``low`` to ``high`` times as large as where
    it just fits in, placed at random: a part of it, or all of it with room around."""
    factor = min(out.width / size.width, out.height / size.height) * rng.uniform(low, high)
    sides = np.array(out) / factor
    room = np.array(size) - sides  # negative where the window is the larger
    corner = rng.uniform(0, 1, 2) * room
    return np.concatenate([corner, corner + sides])
