"""The views of an image: two global crops, local ones, and what Gram's teacher sees."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..core.structures import Geometry, Size
from ..data.common.images import read_image
from ..data.labels.transforms import random_part

# DINOv3's blur as it is effectively applied: its GaussianBlur(p) hands 1 - p on to RandomApply
# (facebookresearch/dinov3 issue 286), so that of 1.0, 0.1 and 0.5 as written the first global
# crop is never blurred, the second nine times of ten, and local crops half of the time.
BLUR = {"first": 0.0, "second": 0.9, "local": 0.5}
SOLARISE = {"first": 0.0, "second": 0.2, "local": 0.0}


@dataclass(frozen=True)
class CropSizes:
    """Sides in pixels, numbers and shares of the image's area. gram_size: the side of the crops
    that Gram's teacher sees; None: those of the student."""

    globals: int = 2
    global_size: int = 224
    local_size: int = 96
    locals: int = 8
    global_scale: tuple[float, float] = (0.32, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.32)
    gram_size: int | None = None


class CropTransform:
    """Reads an image once and cuts all its views from it; see ``load``."""

    def __init__(self, sizes: CropSizes) -> None:
        self.sizes = sizes
        self._colours: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Spawned workers build their own pipelines."""
        return {**self.__dict__, "_colours": {}}

    def load(self, record: Path, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray], Geometry]:
        """A pixel (all views are targets); {"global": uint8 [2, G, G, 3], "local": [L, S, S, 3],
        "gram": [2, G', G', 3] where wanted, "seed": int64 []}; the geometry of a global crop."""
        image, rng, sizes = read_image(record), np.random.default_rng(seed), self.sizes
        side = max(sizes.global_size, sizes.gram_size or 0)
        kinds = ("first", "second")[: sizes.globals]
        views = [self._cut(image, side, sizes.global_scale, kind, rng) for kind in kinds]
        local = [
            self._cut(image, sizes.local_size, sizes.local_scale, "local", rng)
            for _ in range(sizes.locals)
        ]
        more = {
            "global": np.stack([_scaled(view, sizes.global_size) for view in views]),
            "seed": np.array(seed, np.int64),
        }
        if local:
            more["local"] = np.stack(local)
        if sizes.gram_size:
            more["gram"] = np.stack([_scaled(view, sizes.gram_size) for view in views])
        original = Size(image.shape[1], image.shape[0])
        return image[:1, :1], more, Geometry(original, Size(sizes.global_size, sizes.global_size))

    def cache_key(self) -> dict[str, Any]:
        """What load does with an image (no features are kept of crops)."""
        return {"VERSION": 1, **vars(self.sizes)}

    def _cut(
        self,
        image: np.ndarray,
        side: int,
        scale: tuple[float, float],
        kind: str,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """A random part at side x side, mirrored half of the time, its colours changed."""
        whole = Size(image.shape[1], image.shape[0])
        crop = _scaled(image[random_part(whole, rng, scale)], side)
        if rng.random() < 0.5:
            crop = cv2.flip(crop, 1)
        if kind not in self._colours:
            self._colours[kind] = _colours(BLUR[kind], SOLARISE[kind])
        self._colours[kind].set_random_seed(int(rng.integers(2**31)))
        return self._colours[kind](image=np.ascontiguousarray(crop))["image"]


def _scaled(image: np.ndarray, side: int) -> np.ndarray:
    """uint8 [h, w, 3] -> [side, side, 3], bicubic, by averaging where it shrinks much."""
    height, width = image.shape[:2]
    if (height, width) == (side, side):
        return image
    shrinks = max(height, width) >= 2 * side
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(image), (side, side), interpolation=method)


def _colours(blur: float, solarise: float) -> Any:
    """Jitter, grey, blur and solarisation with DINO's strengths, by Albumentations."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else it asks the network for its version
    import albumentations as A  # noqa: N812

    steps: list[Any] = [
        A.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, p=0.8),
        A.ToGray(p=0.2),
    ]
    if blur:
        steps.append(A.GaussianBlur(blur_limit=(9, 9), sigma_limit=(0.1, 2.0), p=blur))
    if solarise:
        steps.append(A.Solarize(threshold_range=(0.5, 0.5), p=solarise))
    return A.Compose(steps)
