"""From an image and its objects' masks to the model's input."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.structures import Geometry, ResizeMode, Size
from ..common import images
from ..masks.transforms import MaskTransform, resize_mask
from . import outlines
from .reader import InstanceReader
from .records import InstanceRecord, Objects

VERSION = 1  # of what comes out: see ``cache_key``


class InstanceTransform(MaskTransform):
    """As ``MaskTransform`` with its presets; see ``load``.

    What happens to the pixels is found out once, by a picture of their numbers; each mask then
    takes its own, so that masks may overlap and be many.
    """

    fill = -1  # of what is padded: no pixel's number

    def __init__(
        self,
        reader: InstanceReader,
        size: Size,
        mode: ResizeMode | None,
        preset: Any = "jitter",
        training: bool = True,
    ) -> None:
        self.objects = reader
        super().__init__(reader, size, mode, preset, training)  # type: ignore[arg-type]

    def cache_key(self) -> dict[str, Any]:
        """See ``data.common.loaders.Transform``."""
        return {**super().cache_key(), "name": "instances", "own version": VERSION}

    def load(  # type: ignore[override]
        self, record: InstanceRecord, seed: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray], Geometry]:
        """Image uint8 [h, w, 3]; {"masks": uint8 [N, h, w] of 0 and 1, "labels": int64 [N] from 0}
        of the objects that are still seen, no crowds; geometry.

        In validation there is no target: scores are taken in the original pixels.
        """
        image = images.read_image(record.image)
        own = Size(image.shape[1], image.shape[0])
        if not self.training:
            geometry = Geometry(own, own)
            if self.mode is not None:
                image, geometry = images.resize(image, self.size, self.mode)
            return image, {}, geometry
        found = self.objects.of(record, own)
        image, masks, geometry = self.with_masks(image, outlines.from_rles(found.rles, own), seed)
        return image, _target(found, masks), geometry

    def target(self, record: InstanceRecord) -> dict[str, np.ndarray]:
        """That of ``load`` without augmentation; the image is not read."""
        assert self.mode is not None
        found = self.objects.of(record)
        size = images.fitted_size(found.size, self.size, self.mode)
        masks = outlines.from_rles(found.rles, found.size)
        return _target(found, _moved(masks, resize_mask(_numbers(found.size), size)))

    def with_masks(
        self, image: np.ndarray, masks: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray, Geometry]:
        """The image and masks uint8 [N, H, W] at the model's size."""
        numbers = _numbers(Size(masks.shape[2], masks.shape[1]))
        image, numbers, geometry = self(image, numbers, seed)
        return image, _moved(masks, numbers), geometry


def _numbers(size: Size) -> np.ndarray:
    """int32 [H, W]: the number of each pixel."""
    return np.arange(size.height * size.width, dtype=np.int32).reshape(size.height, size.width)


def _moved(masks: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Masks uint8 [N, H, W] with the pixels of these numbers [h, w]; 0 where it is -1."""
    count, height, width = masks.shape
    flat = np.zeros((count, height * width + 1), np.uint8)  # the last: what is padded
    flat[:, :-1] = masks.reshape(count, height * width)
    return flat[:, numbers]


def _target(found: Objects, masks: np.ndarray) -> dict[str, np.ndarray]:
    keep = masks.any(axis=(1, 2)) & ~found.crowd
    return {"masks": masks[keep], "labels": found.labels[keep]}
