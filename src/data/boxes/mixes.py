"""Training samples made of several images: mosaic (https://arxiv.org/abs/2004.10934) and mixup for
detection (https://arxiv.org/abs/1902.04103), off in the last epochs, as in YOLOX
(https://arxiv.org/abs/2107.08430)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core.structures import Geometry, ResizeMode, Size
from ..common import images
from ..common.loaders import Phases
from ..common.settings import Strengths
from ..common.shared import SharedRecords
from .distortion import FILL, photometric
from .records import BoxRecord
from .transforms import BoxTransform, mirror_boxes
from .windows import render, scale_jitter

MOSAIC = 0.5  # of the samples; the others are the preset ssd's
MIXUP = 0.25  # of the mosaics
CENTRE = (0.3, 0.7)  # where the four tiles meet, as shares of the sides
SCALE = (0.4, 1.2)  # of a tile's image, of the size at which it just fits in the whole
LAST = 0.15  # of the epochs are without: pictures as they will be seen

Scene = tuple[np.ndarray, np.ndarray, np.ndarray]


class MosaicTransform:
    """The preset ``mosaic``: half of the samples are four images in one, a quarter of these has
    another image blended in; the others are as the preset ``ssd`` makes them.

    records: those that the other images are drawn from, by the sample's own seed.
    """

    def __init__(
        self,
        records: Sequence[BoxRecord],
        size: Size,
        mode: ResizeMode,
        strengths: Strengths | None = None,
    ) -> None:
        self.records = SharedRecords(records)
        self.single = BoxTransform("ssd", size, mode, True, strengths)
        self.single.whole = True
        self.size = Size(*size)

    def output_size(self, original: Size) -> Size:
        """As ``BoxTransform``'s: one size for all."""
        return self.size

    def load(
        self, record: BoxRecord, seed: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray], Geometry]:
        """As ``BoxTransform.load``; the geometry says sizes only."""
        rng = np.random.default_rng((seed, 1))
        if rng.random() >= MOSAIC:
            return self.single.load(record, seed)
        tiles = [record, *(self._another(rng) for _ in range(3))]
        scene = mosaic([read(one) for one in tiles], self.size, rng)
        if rng.random() < MIXUP:
            image, target, _ = self.single.load(self._another(rng), int(rng.integers(2**31)))
            scene = mixup(scene, (image, target["boxes"], target["labels"]))
        image, boxes, labels = scene
        strengths = self.single.strengths
        image, boxes = mirror_boxes(image, boxes, strengths, rng)
        geometry = Geometry(record.size or self.size, self.size)
        return (
            photometric(image, rng, strengths.colour),
            {"boxes": boxes, "labels": labels},
            geometry,
        )

    def cache_key(self) -> dict[str, Any]:
        """As BoxTransform's (mosaics are not kept)."""
        return {**self.single.cache_key(), "preset": "mosaic"}

    def _another(self, rng: np.random.Generator) -> BoxRecord:
        return self.records[int(rng.integers(len(self.records)))]


def read(record: BoxRecord) -> Scene:
    """A record's image, and its boxes and labels but those of crowds."""
    use = ~record.crowd
    return images.read_image(record.image), record.boxes[use], record.labels[use]


def mosaic(scenes: Sequence[Scene], size: Size, rng: np.random.Generator) -> Scene:
    """Four scenes around a drawn point of a picture of ``size``, each at a drawn scale."""
    x, y = (round(side * rng.uniform(*CENTRE)) for side in size)
    corners = [(0, 0, x, y), (x, 0, size.width, y), (0, y, x, size.height), (x, y, *size)]
    canvas = np.empty((size.height, size.width, 3), np.uint8)
    boxes, labels = [], []
    for (image, own, classes), (left, top, right, bottom) in zip(scenes, corners, strict=True):
        out = Size(right - left, bottom - top)
        original = Size(image.shape[1], image.shape[0])
        window = scale_jitter(original, size, *SCALE, rng)
        # Of that view of the whole picture, the tile shows a part as large as itself.
        share = np.array(out) / size
        corner = window[:2] + rng.uniform(0, 1, 2) * (1 - share) * (window[2:] - window[:2])
        corner = np.clip(corner, 1 - share * (window[2:] - window[:2]), np.array(original) - 1)
        window = np.concatenate([corner, corner + share * (window[2:] - window[:2])])
        canvas[top:bottom, left:right], moved, kept = render(image, own, classes, window, out)
        boxes.append(moved + np.array([left, top, left, top], np.float32))
        labels.append(kept)
    return canvas, np.concatenate(boxes).astype(np.float32), np.concatenate(labels)


def mixup(first: Scene, second: Scene) -> Scene:
    """The mean of two pictures, with the boxes of both; the smaller is filled up."""
    height, width = (max(first[0].shape[axis], second[0].shape[axis]) for axis in (0, 1))
    total = np.zeros((height, width, 3), np.uint16)
    for image, _, _ in (first, second):
        canvas = np.empty((height, width, 3), np.uint16)
        canvas[:] = FILL
        canvas[: image.shape[0], : image.shape[1]] = image
        total += canvas
    boxes, labels = (np.concatenate([first[i], second[i]]) for i in (1, 2))
    return ((total + 1) // 2).astype(np.uint8), boxes, labels


def mosaic_phases(
    records: Sequence[BoxRecord],
    size: Size,
    mode: ResizeMode,
    epochs: int,
    strengths: Strengths | None = None,
) -> Phases:
    """Mosaics and mixtures, then, for the last epochs (at least one of several), ``flip``."""
    last = max(1, round(LAST * epochs)) if epochs > 1 else 0
    plain = BoxTransform("flip", size, mode, True, strengths)
    return Phases(MosaicTransform(records, size, mode, strengths), plain, epochs - last)
