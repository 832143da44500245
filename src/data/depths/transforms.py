"""From an image and its depth to the model's input: augmentation presets and the resize."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np

from ...core.structures import Geometry, ResizeMode, Size
from ..boxes.distortion import FILL
from ..common import images
from .reader import DepthRecord, cropped, read_depth
from .settings import DepthDataset

DepthPreset = Literal["none", "flip", "strong"]
_TURN = 2.5  # degrees, to either side
_LIGHT = (0.9, 1.1)
_CROP = 0.85  # least side of a crop, as a share of the image's
VERSION = 2  # of what comes out: see ``cache_key``


class DepthTransform:
    """Reads and transforms a pair for training or validation; see ``load``.

    Presets, in training only: none; flip = mirrored half of the time; strong = and turned by up
    to 2.5 degrees, a crop, brightness, gamma and colour (as BTS, https://arxiv.org/abs/1907.10326,
    and Meta's evaluation of DINOv3). No preset changes the scale: metric depth would change with
    it. What is missing beside a crop is filled up, right and bottom (mean colour, unknown depth).
    """

    def __init__(
        self,
        dataset: DepthDataset,
        size: Size,
        mode: ResizeMode,
        preset: DepthPreset = "strong",
        training: bool = True,
    ) -> None:
        self.dataset, self.size, self.mode = dataset, Size(*size), mode
        self.preset: DepthPreset = preset if training else "none"
        self.training = training
        if training:
            used = {"none": "", "flip": "flip flip_updown"}
            dataset.AUGMENT.warn_idle(preset, used.get(preset, "flip flip_updown colour"))

    def cache_key(self) -> dict[str, Any]:
        """See ``data.common.loaders.Transform``."""
        return {
            "name": "depths",
            "version": [VERSION, images.VERSION],
            "size": list(self.size),
            "resize": self.mode,
            "preset": self.preset,
            "training": self.training,
            "changes": [_TURN, *_LIGHT, _CROP],
            **self.dataset.AUGMENT.named(),
            "crop": self.dataset.TRAIN_CROP,
        }

    def output_size(self, original: Size) -> Size:
        """Of what ``load`` makes of an image of this size."""
        if self.training and self.dataset.TRAIN_CROP is not None:
            left, top, right, bottom = self.dataset.TRAIN_CROP
            original = Size(min(right, original.width) - left, min(bottom, original.height) - top)
        return images.fitted_size(original, self.size, self.mode)

    def load(
        self, record: DepthRecord, seed: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray], Geometry]:
        """Image uint8 [h, w, 3], {"depth": float32 [h, w] in metres, 0 = not measured}, geometry.

        In validation the depth keeps its own size, within EVAL_CROP: scores are taken in the
        original pixels.
        """
        image = images.read_image(record.image)
        depth = read_depth(record.depth, self.dataset, Size(image.shape[1], image.shape[0]))
        if not self.training:
            image, geometry = images.resize(image, self.size, self.mode)
            return image, {"depth": cropped(depth, self.dataset.EVAL_CROP)}, geometry
        if self.dataset.TRAIN_CROP is not None:
            left, top, right, bottom = self.dataset.TRAIN_CROP
            image, depth = image[top:bottom, left:right], depth[top:bottom, left:right]
        image, geometry = images.resize(np.ascontiguousarray(image), self.size, self.mode)
        depth = resize_depth(depth, geometry.resized)
        image, depth = self.augment(image, depth, np.random.default_rng(seed))
        size = Size(image.shape[1], image.shape[0])
        return image, {"depth": depth}, Geometry(geometry.original, size)

    def augment(
        self, image: np.ndarray, depth: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """The preset's changes of a pair of one size."""
        if self.preset == "none":
            return image, depth
        image, depth = images.mirror((image, depth), self.dataset.AUGMENT, rng)
        if self.preset == "strong":
            image, depth = turn(image, depth, float(rng.uniform(-_TURN, _TURN)))
            image, depth = crop(relight(image, rng, self.dataset.AUGMENT.colour), depth, rng)
        return np.ascontiguousarray(image), np.ascontiguousarray(depth)


def resize_depth(depth: np.ndarray, size: Size) -> np.ndarray:
    """float32 [H, W] -> [size.height, size.width], each pixel the nearest one's depth (a mean over
    an edge, or with unmeasured pixels, would be a depth that is nowhere)."""
    if (depth.shape[1], depth.shape[0]) == tuple(size):
        return np.ascontiguousarray(depth)
    contiguous = np.ascontiguousarray(depth)
    return cv2.resize(contiguous, size, interpolation=cv2.INTER_NEAREST_EXACT)


def turn(image: np.ndarray, depth: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Both turned around the middle; what comes in from outside is mirrored, its depth unknown."""
    height, width = depth.shape
    matrix = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), degrees, 1.0)
    image = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
    depth = cv2.warpAffine(depth, matrix, (width, height), flags=cv2.INTER_NEAREST, borderValue=0)
    return image, depth


def crop(
    image: np.ndarray, depth: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The same random part of both, with sides of 85 to 100 %, in a frame of the size of before."""
    height, width = depth.shape
    h, w = (max(1, round(side * rng.uniform(_CROP, 1))) for side in (height, width))
    top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    part = slice(top, top + h), slice(left, left + w)
    below, beside = height - h, width - w
    image = cv2.copyMakeBorder(image[part], 0, below, 0, beside, cv2.BORDER_CONSTANT, value=FILL)
    return image, cv2.copyMakeBorder(depth[part], 0, below, 0, beside, cv2.BORDER_CONSTANT)


def relight(image: np.ndarray, rng: np.random.Generator, strength: float = 1) -> np.ndarray:
    """Gamma, brightness and the balance of the three colours, each changed by up to 10 % (times
    ``strength``)."""
    gamma, brightness, *colour = 1 + strength * (rng.uniform(*_LIGHT, 5) - 1)
    levels = (np.arange(256) / 255) ** gamma * 255 * brightness
    table = (levels[:, None] * colour).clip(0, 255).astype(np.uint8)  # [256, 3]
    return cv2.LUT(np.ascontiguousarray(image), table[None])
