"""What happens to images before a detector's backbone, and to boxes on the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torchvision.transforms.v2 import functional as TF

from ..backbones.batching import Images, sizes_of
from ..core.structures import DetectionTarget, ResizeMode, Size
from ..data.common.images import fitted_size

D = TypeVar("D", bound=Any)  # a dict with "boxes"


@dataclass(frozen=True)
class InputTransform:
    """Images of any size -> those the backbone takes; boxes back to the pixels handed in.

    divisor: a batch's height and width are padded (right, bottom) to a multiple of it.
    size, resize: resize every image to ``size`` first (``fit`` keeps the aspect ratio inside
    it, ``stretch`` fills it); ``resize=None`` takes images as they come.
    """

    divisor: int = 1
    size: Size | None = None
    resize: ResizeMode | None = None

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of an image after resizing."""
        if self.size is None or self.resize is None:
            return height, width
        size = fitted_size(Size(width, height), self.size, self.resize)
        return size.height, size.width

    def apply(
        self, images: Images, targets: Sequence[DetectionTarget] | None
    ) -> tuple[Images, Sequence[DetectionTarget] | None]:
        """Images [3, H, W] (uint8 or float in [0, 1]) resized. Targets follow."""
        before = sizes_of(images)
        sizes = [self.resized(h, w) for h, w in before]
        if sizes != before:
            images = [
                image if old == new else TF.resize(image, list(new), antialias=True)
                for image, old, new in zip(images, before, sizes)
            ]
            if targets is not None:
                targets = [
                    target if old == new else _scaled(target, old, new)
                    for target, old, new in zip(targets, before, sizes)
                ]
        return images, targets

    def restore(
        self,
        detections: list[D],
        sizes: Sequence[tuple[int, int]],
        originals: Sequence[tuple[int, int]],
    ) -> list[D]:
        """Boxes in resized pixels -> pixels of the images handed in, inside them.

        sizes, originals: (height, width) of each image after and before resizing.
        """
        for detection, (h, w), (height, width) in zip(detections, sizes, originals):
            if (h, w) == (height, width):
                continue
            boxes = detection["boxes"]
            x = (boxes[:, 0::2] * (width / w)).clamp(0, width)
            y = (boxes[:, 1::2] * (height / h)).clamp(0, height)
            detection["boxes"] = torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)
        return detections


def _scaled(target: DetectionTarget, old: tuple[int, int], new: tuple[int, int]) -> DetectionTarget:
    x, y = new[1] / old[1], new[0] / old[0]
    boxes = target["boxes"]
    factors = torch.stack([torch.full((), f, dtype=boxes.dtype) for f in (x, y, x, y)])
    return {**target, "boxes": boxes * factors.to(boxes.device, non_blocking=True)}
