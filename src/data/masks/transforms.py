"""From an image and its mask to the model's input: augmentation presets and the resize."""

from __future__ import annotations

import os
from typing import Any, Literal

import cv2
import numpy as np

from ...core.structures import IGNORE, Geometry, ResizeMode, Size
from ..common import images
from ..common.settings import Strengths
from .reader import MaskReader, MaskRecord

MaskPreset = Literal["none", "flip", "jitter", "lsj", "strong"]
JITTER = (0.5, 2.0)  # of the size that the image would have without augmentation
LSJ = (0.1, 2.0)
CROPPING = ("jitter", "lsj", "strong")
VERSION = 1  # of what comes out: see ``cache_key``
# The strengths of the YAML's AUGMENT that a preset has.
USED = {"none": "", "flip": "flip flip_updown", "strong": "flip flip_updown scale colour"}


class MaskTransform:
    """Reads and transforms a pair for training or validation; see ``load``.

    Presets, in training only: none; flip = mirrored half of the time; jitter = resized by 0.5 to
    2 times (log-uniform), a crop of ``size``, flip; lsj = the same from 0.1 to 2 times (uniform:
    https://arxiv.org/abs/2012.07177); strong = jitter and colour, blur, noise, grey.
    These three always give ``size``; what is missing is padded (grey, ``fill``).
    mode None: validation images keep their size.
    """

    fill = IGNORE

    def __init__(
        self,
        reader: MaskReader,
        size: Size,
        mode: ResizeMode | None,
        preset: MaskPreset = "jitter",
        training: bool = True,
    ) -> None:
        self.reader, self.size, self.mode = reader, Size(*size), mode
        self.training = training
        self.preset: MaskPreset = preset if training else "none"
        self.strengths = reader.dataset.AUGMENT
        if training:
            self.strengths.warn_idle(preset, USED.get(preset, "flip flip_updown scale"))
        self.channels = getattr(reader.dataset, "CHANNELS", 3)  # of instances always
        images.require_colours(self.preset, self.channels)
        self._pipeline: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Spawned workers build their own pipeline: albumentations' need not be picklable."""
        return {**self.__dict__, "_pipeline": None}

    def cache_key(self) -> dict[str, Any]:
        """See ``data.common.loaders.Transform``."""
        return {
            "name": "masks",
            "version": [VERSION, images.VERSION],
            "size": list(self.size),
            "resize": self.mode,
            "preset": self.preset,
            "training": self.training,
            "jitter": [*JITTER, *LSJ],
            **self.strengths.named(),
            **({} if self.channels == 3 else {"channels": self.channels}),
        }

    def output_size(self, original: Size) -> Size:
        """Of what ``load`` makes of an image of this size."""
        if self.mode is None or self.preset in CROPPING:
            return original if self.mode is None else self.size
        return images.fitted_size(original, self.size, self.mode)

    def load(
        self, record: MaskRecord, seed: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray], Geometry]:
        """Image uint8 [h, w, 3] (of other channels float32), {"mask": uint8 [h, w]}, geometry.

        In validation the mask keeps its own size: scores are taken in the original pixels.
        """
        image = self.reader.image(record)
        mask = self.reader.of(record, Size(image.shape[1], image.shape[0]))
        if not self.training:
            own = Size(image.shape[1], image.shape[0])
            geometry = Geometry(own, own)
            if self.mode is not None:
                image, geometry = images.resize(image, self.size, self.mode)
            return image, {"mask": mask}, geometry
        image, mask, geometry = self(image, mask, seed)
        return image, {"mask": mask}, geometry

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray, Geometry]:
        """Image and mask at the model's size (the plain resize, or a preset's crop)."""
        assert self.mode is not None
        original = Size(image.shape[1], image.shape[0])
        rng = np.random.default_rng(seed)
        size = self.size
        cropping = self.preset in CROPPING
        if cropping:  # one resize for both: the fitting and the jitter
            if self.preset == "lsj":
                factor = float(rng.uniform(*(self.strengths.scale or LSJ)))
            else:
                factor = float(np.exp(rng.uniform(*np.log(self.strengths.scale or JITTER))))
            size = Size(max(1, round(size.width * factor)), max(1, round(size.height * factor)))
        image, geometry = images.resize(image, size, self.mode)
        mask = resize_mask(mask, geometry.resized)
        if cropping:
            image, mask = self._augment(image, mask, int(rng.integers(2**31)))
        elif self.preset == "flip":
            image, mask = images.mirror((image, mask), self.strengths, rng)
        return image, mask, Geometry(original, Size(image.shape[1], image.shape[0]))

    def _augment(
        self, image: np.ndarray, mask: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        if self._pipeline is None:
            colour = self.strengths.colour if self.preset == "strong" else 0.0
            self._pipeline = build_pipeline(
                self.size, colour, self.fill, self.strengths, self.channels
            )
        self._pipeline.set_random_seed(seed)
        if self.channels == 3:
            done = self._pipeline(image=image, mask=mask)
            return done["image"], done["mask"]
        mean = np.array(self.reader.dataset.MEAN, np.float32)  # of so many cv2 pads with 0 alone
        done = self._pipeline(image=image - mean, mask=mask)
        return done["image"] + mean, done["mask"]


def resize_mask(mask: np.ndarray, size: Size) -> np.ndarray:
    """[H, W] -> [size.height, size.width], each pixel the nearest one's class."""
    if (mask.shape[1], mask.shape[0]) == tuple(size):
        return mask
    return cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)


def build_pipeline(
    size: Size, colour: float, fill: int, strengths: Strengths, channels: int = 3
) -> Any:
    """Albumentations: pad (image grey, of other than three channels 0; mask ``fill``), crop to
    ``size``, flip, and changes of colour times ``colour``."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else it asks the network for its version
    import albumentations as A  # noqa: N812

    from ..boxes.distortion import FILL

    steps: list[Any] = [
        A.PadIfNeeded(
            size.height,
            size.width,
            fill=FILL if channels == 3 else 0.0,
            fill_mask=fill,
            position="random",
        ),
        A.RandomCrop(size.height, size.width),
        A.HorizontalFlip(p=strengths.flip),
    ]
    if strengths.flip_updown:
        steps.append(A.VerticalFlip(p=strengths.flip_updown))
    if colour:
        worse = [A.GaussianBlur(blur_limit=(3, 5)), A.GaussNoise(std_range=(0.02, 0.08))]
        steps += [
            A.ColorJitter(*(colour * v for v in (0.4, 0.4, 0.4, 0.05)), p=0.8),
            A.ToGray(p=0.05),
            A.OneOf(worse, p=0.2),
        ]
    return A.Compose(steps)
