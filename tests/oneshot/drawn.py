"""Drawn scenes with known masks: textured objects before a textured ground."""

from __future__ import annotations

import cv2
import numpy as np


def ground(width: int, height: int, seed: int) -> np.ndarray:
    """Grey-green blotches with fine grain, uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 22, (height // 24 + 2, width // 24 + 2, 3))
    blotches = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    noise = rng.normal(0, 10, (height, width, 1))
    return np.clip(np.array([105, 125, 100]) + blotches + noise, 0, 255).astype(np.uint8)


def _paint(image: np.ndarray, inside: np.ndarray, colour, seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = inside.shape
    y, x = np.mgrid[:height, :width]
    stripes = 18 * np.sin((x + 2 * y) / 3.0)[..., None]
    texture = np.array(colour) + stripes + rng.normal(0, 8, (height, width, 1))
    image[inside] = np.clip(texture, 0, 255).astype(np.uint8)[inside]


def ellipse(width: int, height: int, centre, radii, angle: float = 0) -> np.ndarray:
    """bool [H, W]."""
    mask = np.zeros((height, width), np.uint8)
    centre = tuple(round(float(v) * 16) for v in centre)
    radii = tuple(round(float(v) * 16) for v in radii)
    cv2.ellipse(mask, centre, radii, angle, 0, 360, 1, -1, shift=4)
    return mask > 0


ORANGE, BLUE = (205, 110, 60), (60, 90, 190)


def scene(seed: int, width: int = 320, height: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """(image, mask 0/1): an orange ellipse somewhere, and a blue one that is not meant."""
    rng = np.random.default_rng(seed)
    image = ground(width, height, seed + 1000)
    left = rng.random() < 0.5
    xs = (rng.uniform(70, 110), rng.uniform(215, 250))
    ys = rng.uniform(75, 165, 2)
    wanted = ellipse(
        width, height, (xs[0 if left else 1], ys[0]), rng.uniform(36, 56, 2), rng.uniform(0, 180)
    )
    other = ellipse(
        width, height, (xs[1 if left else 0], ys[1]), rng.uniform(30, 48, 2), rng.uniform(0, 180)
    )
    _paint(image, other, BLUE, seed + 1)
    _paint(image, wanted, ORANGE, seed + 2)
    return image, wanted.astype(np.uint8)


def clip(
    frames: int = 20, width: int = 320, height: int = 240
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(images, masks 0/1/2): an orange and a blue ellipse that move, turn and change in size
    before a ground that stands still; fresh grain in each frame."""
    still = ground(width, height, 7).astype(np.float32)
    images, masks = [], []
    for t in range(frames):
        rng = np.random.default_rng(100 + t)
        image = np.clip(still + rng.normal(0, 4, still.shape), 0, 255).astype(np.uint8)
        one = ellipse(
            width, height, (80 + 5 * t, 90 + 30 * np.sin(t / 6)),
            (44 + 0.5 * t, 34 + 0.3 * t), 3 * t,
        )  # fmt: skip
        two = ellipse(width, height, (240 - 3 * t, 190 - t), (38 - 0.3 * t, 30), -2 * t)
        _paint(image, two, BLUE, 50 + t)
        _paint(image, one, ORANGE, 80 + t)
        images.append(image)
        masks.append(np.where(one, 1, np.where(two, 2, 0)).astype(np.uint8))
    return images, masks
