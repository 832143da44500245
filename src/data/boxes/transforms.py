"""From a read image and its boxes to the model's input: augmentation presets and the resize.

Mosaic and mixup, which take several images, are in ``mixes``.
"""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np

from ...core.structures import Geometry, ResizeMode, Size
from ..common import images
from ..common.settings import Strengths
from .distortion import disturb, photometric
from .records import BoxRecord
from .windows import iou_crop, render, scale_jitter, widened, zoom_out

Preset = Literal["none", "flip", "ssd", "lsj", "strong"]
Sample = tuple[np.ndarray, np.ndarray, np.ndarray, Geometry]

VERSION = 2  # of what comes out: see ``cache_key``
LSJ = (0.1, 2.0)  # of the size at which an image just fits in
# The strengths of the YAML's AUGMENT that a preset has.
USED = {"none": "", "flip": "flip flip_updown", "lsj": "flip flip_updown colour scale"}


class BoxTransform:
    """``transform(image, boxes, labels, seed) -> image, boxes, labels, geometry``.

    In: uint8 [H, W, 3]; float32 [N, 4] xyxy; int64 [N]; every random choice comes from ``seed``.
    Out: the same for the model's input (``fit``: at most WxH, ``stretch``: WxH); of M <= N boxes,
    clipped to the image, with their labels; and the Geometry (original and resulting size: exact
    for the plain resize, sizes only where an augmentation moved things).

    Presets, in training only (validation is the resize alone):
    none; flip = mirrored half of the time; ssd = zoom-out, IoU crop, flip and photometric
    distortion (Liu et al., SSD, arXiv:1512.02325, section 2.2 and 3.6); lsj = large-scale jitter
    (0.1 to 2 times, Ghiasi et al., arXiv:2012.07177), flip and those colours; strong = as ssd, and
    small rotation and shear, blur, noise, JPEG artefacts, grey and cut-out.
    """

    def __init__(
        self,
        preset: Preset,
        size: Size,
        mode: ResizeMode,
        training: bool,
        strengths: Strengths | None = None,
    ) -> None:
        self.preset: Preset = preset if training else "none"
        self.strengths = strengths or Strengths()
        if training:
            self.strengths.warn_idle(preset, USED.get(preset, "flip flip_updown colour"))
        self.size = Size(*size)
        self.mode: ResizeMode = mode
        self.whole = self.preset == "lsj"  # every sample is of ``size``, not of its image's ratio

    def cache_key(self) -> dict[str, Any]:
        """See ``data.common.loaders.Transform``."""
        return {
            "name": "boxes",
            "version": [VERSION, images.VERSION],
            "size": list(self.size),
            "resize": self.mode,
            "preset": self.preset,
            **self.strengths.named(),
        }

    def output_size(self, original: Size) -> Size:
        """Of what ``load`` makes of an image of this size."""
        return self.size if self.whole else images.fitted_size(original, self.size, self.mode)

    def load(
        self, record: BoxRecord, seed: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray], Geometry]:
        """Read a record's image and transform it: image, {"boxes", "labels"}, geometry.

        Crowd boxes (COCO) are no targets; the records keep them for the metric.
        """
        use = ~record.crowd
        image, boxes, labels, geometry = self(
            images.read_image(record.image), record.boxes[use], record.labels[use], seed
        )
        return image, {"boxes": boxes, "labels": labels}, geometry

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, seed: int = 0
    ) -> Sample:
        boxes, labels = boxes.reshape(-1, 4).astype(np.float32), labels.astype(np.int64)
        if self.preset in ("none", "flip"):
            image, geometry = images.resize(image, self.size, self.mode)
            boxes = scale_boxes(boxes, geometry)
            if self.preset == "flip":
                image, boxes = mirror_boxes(
                    image, boxes, self.strengths, np.random.default_rng(seed)
                )
            return image, boxes, labels, geometry
        rng = np.random.default_rng(seed)
        original = Size(image.shape[1], image.shape[0])
        out = self.output_size(original)  # whatever the window: all samples of an image are of it
        if self.preset == "lsj":
            window = scale_jitter(original, out, *(self.strengths.scale or LSJ), rng)
        else:
            window = np.array([0.0, 0.0, *original])
            if rng.random() < 0.5:
                window = zoom_out(window, 4.0 if self.preset == "ssd" else 2.0, rng)
            window = iou_crop(window, boxes, original, rng)
            if self.mode != "stretch":
                window = widened(window, out)
        image, boxes, labels = render(image, boxes, labels, window, out)
        image, boxes = mirror_boxes(image, boxes, self.strengths, rng)
        image = photometric(image, rng, self.strengths.colour)
        if self.preset == "strong":
            image, boxes, labels = disturb(image, boxes, labels, rng)
        return image, boxes, labels, Geometry(original, Size(image.shape[1], image.shape[0]))


def box_transform(
    preset: Preset = "flip",
    size: Size = Size(640, 640),  # noqa: B008 - immutable
    mode: ResizeMode = "fit",
    training: bool = True,
    strengths: Strengths | None = None,
) -> BoxTransform:
    """The transform of a detection split; see BoxTransform."""
    return BoxTransform(preset, size, mode, training, strengths)


def scale_boxes(boxes: np.ndarray, geometry: Geometry) -> np.ndarray:
    """float32 [N, 4] in original pixels -> in resized pixels, rounding kept inside the image."""
    moved = boxes * np.asarray(geometry.scale * 2, np.float32)
    return np.minimum(moved, np.asarray(tuple(geometry.resized) * 2, np.float32))


def mirror_boxes(
    image: np.ndarray, boxes: np.ndarray, strengths: Strengths, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mirrored left to right and upside down as often as ``strengths`` says."""
    across, down = strengths.mirrors(rng)
    if across:
        image, boxes = flip(image, boxes)
    if down:
        boxes = boxes.copy()
        boxes[:, [1, 3]] = image.shape[0] - boxes[:, [3, 1]]
        image = cv2.flip(image, 0)
    return image, boxes


def flip(image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flipped = boxes.copy()
    flipped[:, [0, 2]] = image.shape[1] - boxes[:, [2, 0]]
    return cv2.flip(image, 1), flipped
