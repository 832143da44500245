"""Drawn pictures whose classes are known: a shape of one colour on noise."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from src.data.common.images import write_image

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 190, 60),
    "blue": (40, 60, 220),
    "yellow": (230, 220, 50),
}
TINY = {"model_name": "dinov3_convnext_atto", "weights": "none", "imgsz": [64], "device": "cpu"}


def picture(colour: tuple[int, int, int], seed: int, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 3]: the colour nearly everywhere, with noise and a grey disc somewhere."""
    rng = np.random.default_rng(seed)
    width, height = size
    image = np.full((height, width, 3), colour, np.float32) + rng.normal(0, 12, (height, width, 3))
    image = np.ascontiguousarray(image.clip(0, 255).astype(np.uint8))
    centre = (int(rng.integers(width)), int(rng.integers(height)))
    cv2.circle(image, centre, min(size) // 6, (128, 128, 128), -1)
    return image


def draw_folder(folder: Path, count: int, sizes: tuple[tuple[int, int], ...] = ((64, 64),)) -> Path:
    """count pictures img_0.png ... of changing colours and sizes."""
    colours = list(COLOURS.values())
    for i in range(count):
        image = picture(colours[i % len(colours)], i, sizes[i % len(sizes)])
        write_image(folder / f"img_{i}.png", image)
    return folder


def draw_classes(folder: Path, each: int, first: int = 0) -> Path:
    """folder/<colour>/<number>.png."""
    for name, colour in COLOURS.items():
        for i in range(first, first + each):
            write_image(folder / name / f"{i}.png", picture(colour, 97 * i, (64, 64)))
    return folder
