"""From an image and its objects' masks to the model's input."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.structures import Geometry, ResizeMode, Size
from ..common import images
from ..masks.transforms import MaskTransform
from . import outlines
from .reader import InstanceReader
from .records import InstanceRecord

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
        keep = masks.any(axis=(1, 2)) & ~found.crowd
        return image, {"masks": masks[keep], "labels": found.labels[keep]}, geometry

    def with_masks(
        self, image: np.ndarray, masks: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray, Geometry]:
        """The image and masks uint8 [N, H, W] at the model's size."""
        count, height, width = masks.shape
        numbers = np.arange(height * width, dtype=np.int32).reshape(height, width)
        image, numbers, geometry = self(image, numbers, seed)
        flat = np.zeros((count, height * width + 1), np.uint8)  # the last: what is padded
        flat[:, :-1] = masks.reshape(count, -1)
        return image, flat[:, numbers], geometry
