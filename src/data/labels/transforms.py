"""From an image and its classes to the model's input: augmentation presets and the resize."""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np

from ...core.structures import Geometry, ResizeMode, Size
from ..common import images
from ..common.settings import Strengths
from .reader import LabelRecord

LabelPreset = Literal["none", "flip", "crop", "strong"]
SCALE = (0.35, 1.0)  # share of the image's area that a crop holds
RATIO = (3 / 4, 4 / 3)  # its width / height
VERSION = 1  # of what comes out: see ``cache_key``
# The strengths of the YAML's AUGMENT that a preset has.
USED = {"none": "", "flip": "flip flip_updown", "crop": "flip flip_updown scale"}


class LabelTransform:
    """Reads and transforms an image for training or validation; see ``load``.

    Presets, in training only: none; flip = mirrored half of the time; crop = a random part (35 to
    100 % of the area, aspect 3/4 to 4/3) stretched to ``size``, and flip; strong = and colour,
    grey, blur. classes: their number in multi-label data, whose targets are 0 or 1 for
    each; channels: of the images.
    """

    def __init__(
        self,
        size: Size,
        mode: ResizeMode,
        preset: LabelPreset = "crop",
        training: bool = True,
        classes: int | None = None,
        channels: int = 3,
        strengths: Strengths | None = None,
    ) -> None:
        self.size, self.mode, self.classes = Size(*size), mode, classes
        self.channels = channels
        self.preset: LabelPreset = preset if training else "none"
        self.strengths = strengths or Strengths()
        if training:
            self.strengths.warn_idle(preset, USED.get(preset, "flip flip_updown scale colour"))
        images.require_colours(self.preset, channels)
        self._pipeline: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Spawned workers build their own pipeline: albumentations' need not be picklable."""
        return {**self.__dict__, "_pipeline": None}

    def cache_key(self) -> dict[str, Any]:
        """See ``data.common.loaders.Transform``."""
        return {
            "name": "labels",
            "version": [VERSION, images.VERSION],
            "size": list(self.size),
            "resize": self.mode,
            "preset": self.preset,
            "crop": [*SCALE, *RATIO],
            "classes": self.classes,
            **self.strengths.named(),
            **({} if self.channels == 3 else {"channels": self.channels}),
        }

    def output_size(self, original: Size) -> Size:
        """Of what ``load`` makes of an image of this size."""
        if self.preset in ("crop", "strong"):
            return self.size
        return images.fitted_size(original, self.size, self.mode)

    def load(
        self, record: LabelRecord, seed: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray], Geometry]:
        """Image uint8 [h, w, 3] (of other channels float32), {"label": int64 []} or {"labels":
        float32 [C]}, geometry."""
        image, geometry = self(images.read_bands(record.image, self.channels), seed)
        return image, label_target(record, self.classes), geometry

    def __call__(self, image: np.ndarray, seed: int = 0) -> tuple[np.ndarray, Geometry]:
        """The image at the model's size (the plain resize, or a preset's crop)."""
        if self.preset == "none":
            return images.resize(image, self.size, self.mode)
        rng = np.random.default_rng(seed)
        original = Size(image.shape[1], image.shape[0])
        if self.preset == "flip":
            image, _ = images.resize(image, self.size, self.mode)
        else:
            part = image[random_part(original, rng, self.strengths.scale or SCALE)]
            image, _ = images.resize(part, self.size, "stretch")
        (image,) = images.mirror((image,), self.strengths, rng)
        if self.preset == "strong":
            if self._pipeline is None:
                self._pipeline = _colours(self.strengths.colour)
            self._pipeline.set_random_seed(int(rng.integers(2**31)))
            image = self._pipeline(image=np.ascontiguousarray(image))["image"]
        size = Size(image.shape[1], image.shape[0])
        return np.ascontiguousarray(image), Geometry(original, size)


def random_part(
    image: Size, rng: np.random.Generator, scale: tuple[float, float] = SCALE
) -> tuple[slice, slice]:
    """Rows and columns of a random part: its area ``scale`` of the image's, its aspect RATIO
    (log-uniform), or, where ten draws do not fit, the largest one in the middle
    (Inception's crop, https://arxiv.org/abs/1409.4842, as torchvision draws it)."""
    for _ in range(10):
        area = image.width * image.height * rng.uniform(*scale)
        ratio = float(np.exp(rng.uniform(*np.log(RATIO))))
        width, height = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < width <= image.width and 0 < height <= image.height:
            left = int(rng.integers(image.width - width + 1))
            top = int(rng.integers(image.height - height + 1))
            return slice(top, top + height), slice(left, left + width)
    ratio = min(max(image.width / image.height, RATIO[0]), RATIO[1])
    width = max(1, min(image.width, round(image.height * ratio)))
    height = max(1, min(image.height, round(image.width / ratio)))
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return slice(top, top + height), slice(left, left + width)


def label_target(record: LabelRecord, classes: int | None) -> dict[str, np.ndarray]:
    """{"label": int64 []}, or for multi-label data {"labels": float32 [C] of 0 and 1}."""
    if classes is None:
        return {"label": np.array(record.labels[0], np.int64)}
    labels = np.zeros(classes, np.float32)
    labels[list(record.labels)] = 1
    return {"labels": labels}


def _colours(strength: float) -> Any:
    """Albumentations: colours (times ``strength``), grey and blur."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else it asks the network for its version
    import albumentations as A  # noqa: N812

    return A.Compose(
        [
            A.ColorJitter(*(strength * v for v in (0.4, 0.4, 0.2, 0.1)), p=0.8),
            A.ToGray(p=0.15),
            A.GaussianBlur(blur_limit=(3, 7), p=0.3),
        ]
    )
