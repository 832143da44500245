"""From a read image and its boxes to the model's input: augmentation presets and the resize.

Every geometric choice but the flip and strong's rotation is one *window*: a rectangle in the
image's pixels, which may reach beyond it (zoom-out) or cut it (crop). It is rendered in a single
resize straight to the model's size, so that no large canvas is ever made.
"""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np

from ...core.structures import Geometry, ResizeMode, Size
from ..common import images
from .distortion import FILL, LEAST_SIDE, disturb, photometric
from .records import BoxRecord

Preset = Literal["none", "flip", "ssd", "strong"]
Sample = tuple[np.ndarray, np.ndarray, np.ndarray, Geometry]

_TRIES = 50
VERSION = 1  # of what comes out: see ``cache_key``


class BoxTransform:
    """``transform(image, boxes, labels, seed) -> image, boxes, labels, geometry``.

    In: uint8 [H, W, 3]; float32 [N, 4] xyxy; int64 [N]; every random choice comes from ``seed``.
    Out: the same for the model's input (``fit``: at most WxH, ``stretch``: WxH); of M <= N boxes,
    clipped to the image, with their labels; and the Geometry (original and resulting size: exact
    for the plain resize, sizes only where an augmentation moved things).

    Presets, in training only (validation is the resize alone):
    none; flip = mirrored half of the time; ssd = zoom-out, IoU crop, flip and photometric
    distortion (Liu et al., SSD, arXiv:1512.02325, section 2.2 and 3.6); strong = those, and
    small rotation and shear, blur, noise, JPEG artefacts, grey and cut-out.
    """

    def __init__(self, preset: Preset, size: Size, mode: ResizeMode, training: bool) -> None:
        self.preset: Preset = preset if training else "none"
        self.size = Size(*size)
        self.mode: ResizeMode = mode

    def cache_key(self) -> dict[str, Any]:
        """See ``data.common.loaders.Transform``."""
        return {
            "name": "boxes",
            "version": [VERSION, images.VERSION],
            "size": list(self.size),
            "resize": self.mode,
            "preset": self.preset,
        }

    def load(
        self, record: BoxRecord, seed: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray], Geometry]:
        """Read a record's image and transform it: image, {"boxes", "labels"}, geometry.

        Crowd boxes (COCO) are no targets; the records keep them for the metric.
        """
        use = ~record.crowd
        image, boxes, labels, geometry = self(
            images.read_image(record.image), record.boxes[use], record.labels[use], seed
        )
        return image, {"boxes": boxes, "labels": labels}, geometry

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, seed: int = 0
    ) -> Sample:
        boxes, labels = boxes.reshape(-1, 4).astype(np.float32), labels.astype(np.int64)
        if self.preset in ("none", "flip"):
            image, geometry = images.resize(image, self.size, self.mode)
            boxes = scale_boxes(boxes, geometry)
            if self.preset == "flip" and np.random.default_rng(seed).random() < 0.5:
                image, boxes = _flip(image, boxes)
            return image, boxes, labels, geometry
        rng = np.random.default_rng(seed)
        original = Size(image.shape[1], image.shape[0])
        window = np.array([0.0, 0.0, *original])
        if rng.random() < 0.5:
            window = _zoom_out(window, 4.0 if self.preset == "ssd" else 2.0, rng)
        window = _iou_crop(window, boxes, original, rng)
        image, boxes, labels = self._render(image, boxes, labels, window)
        if rng.random() < 0.5:
            image, boxes = _flip(image, boxes)
        image = photometric(image, rng)
        if self.preset == "strong":
            image, boxes, labels = disturb(image, boxes, labels, rng)
        return image, boxes, labels, Geometry(original, Size(image.shape[1], image.shape[0]))

    def _render(
        self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, window: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cut the window out and resize it; boxes whose centre is outside go."""
        height, width = image.shape[:2]
        left, top, right, bottom = (round(value) for value in window)
        left, top = min(left, width - 1), min(top, height - 1)  # at least one pixel of the image
        right, bottom = max(right, left + 1, 1), max(bottom, top + 1, 1)
        out = images.fitted_size(Size(right - left, bottom - top), self.size, self.mode)
        x = _Axis(left, right, width, out.width)
        y = _Axis(top, bottom, height, out.height)
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
        inside = ((centres > (left, top)) & (centres < (right, bottom))).all(axis=1)
        moved = boxes * np.asarray([x.scale, y.scale] * 2, np.float32) + np.asarray(
            [x.shift, y.shift] * 2, np.float32
        )
        moved = moved.clip(0, np.asarray([*out, *out], np.float32))
        keep = inside & (moved[:, 2:] - moved[:, :2] >= LEAST_SIDE).all(axis=1)
        return part, moved[keep], labels[keep]


def box_transform(
    preset: Preset = "flip",
    size: Size = Size(640, 640),  # noqa: B008 - immutable
    mode: ResizeMode = "fit",
    training: bool = True,
) -> BoxTransform:
    """The transform of a detection split; see BoxTransform."""
    return BoxTransform(preset, size, mode, training)


def scale_boxes(boxes: np.ndarray, geometry: Geometry) -> np.ndarray:
    """float32 [N, 4] in original pixels -> in resized pixels, rounding kept inside the image."""
    moved = boxes * np.asarray(geometry.scale * 2, np.float32)
    return np.minimum(moved, np.asarray(tuple(geometry.resized) * 2, np.float32))


class _Axis:
    """One axis of a window: which pixels of the image land on which pixels of the output."""

    def __init__(self, low: int, high: int, limit: int, out: int) -> None:
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


def _flip(image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flipped = boxes.copy()
    flipped[:, [0, 2]] = image.shape[1] - boxes[:, [2, 0]]
    return cv2.flip(image, 1), flipped


def _zoom_out(window: np.ndarray, most: float, rng: np.random.Generator) -> np.ndarray:
    """A window up to ``most`` times as wide and high, with the image anywhere in it."""
    width, height = window[2:] - window[:2]
    ratio = rng.uniform(1, most)
    left = -rng.uniform(0, width * (ratio - 1))
    top = -rng.uniform(0, height * (ratio - 1))
    return np.array([left, top, left + width * ratio, top + height * ratio])


def _iou_crop(
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
