"""From an image and its classes to the model's input: augmentation presets and the resize."""

from __future__ import annotations

import os
from typing import Any, Literal

import cv2
import numpy as np

from ...core.structures import Geometry, ResizeMode, Size
from ..common import images
from .reader import LabelRecord

LabelPreset = Literal["none", "flip", "crop", "strong"]
SCALE = (0.35, 1.0)  # share of the image's area that a crop holds


class LabelTransform:
    """Reads and transforms an image for training or validation; see ``load``.

    Presets, in training only: none; flip = mirrored half of the time; crop = a random part (35 to
    100 % of the area, aspect 3/4 to 4/3) stretched to ``size``, and flip; strong = and colour,
    grey, blur. classes: their number in multi-label data, whose targets are 0 or 1 for each.
    """

    def __init__(
        self,
        size: Size,
        mode: ResizeMode,
        preset: LabelPreset = "crop",
        training: bool = True,
        classes: int | None = None,
    ) -> None:
        self.size, self.mode, self.classes = Size(*size), mode, classes
        self.preset: LabelPreset = preset if training else "none"
        self._pipeline: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Spawned workers build their own pipeline: albumentations' need not be picklable."""
        return {**self.__dict__, "_pipeline": None}

    def load(
        self, record: LabelRecord, seed: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray], Geometry]:
        """Image uint8 [h, w, 3], {"label": int64 []} or {"labels": float32 [C]}, geometry."""
        image, geometry = self(images.read_image(record.image), seed)
        return image, label_target(record, self.classes), geometry

    def __call__(self, image: np.ndarray, seed: int = 0) -> tuple[np.ndarray, Geometry]:
        """The image at the model's size (the plain resize, or a preset's crop)."""
        original = Size(image.shape[1], image.shape[0])
        if self.preset in ("none", "flip"):
            image, geometry = images.resize(image, self.size, self.mode)
            if self.preset == "flip" and np.random.default_rng(seed).random() < 0.5:
                image = cv2.flip(image, 1)
            return image, geometry
        if self._pipeline is None:
            self._pipeline = _pipeline(self.size, self.preset == "strong")
        self._pipeline.set_random_seed(seed % 2**32)
        return self._pipeline(image=image)["image"], Geometry(original, self.size)


def label_target(record: LabelRecord, classes: int | None) -> dict[str, np.ndarray]:
    """{"label": int64 []}, or for multi-label data {"labels": float32 [C] of 0 and 1}."""
    if classes is None:
        return {"label": np.array(record.labels[0], np.int64)}
    labels = np.zeros(classes, np.float32)
    labels[list(record.labels)] = 1
    return {"labels": labels}


def _pipeline(size: Size, strong: bool) -> Any:
    """Albumentations: random resized crop, flip, and colours."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else it asks the network for its version
    import albumentations as A  # noqa: N812

    steps: list[Any] = [
        A.RandomResizedCrop((size.height, size.width), scale=SCALE),
        A.HorizontalFlip(p=0.5),
    ]
    if strong:
        steps.append(A.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8))
        steps.append(A.ToGray(p=0.15))
        steps.append(A.GaussianBlur(blur_limit=(3, 7), p=0.3))
    return A.Compose(steps)
