"""Named types that pass between rooms: shapes, units and axis order in one place.

Coordinates: x to the right, y downwards, in pixels; a box is (x1, y1, x2, y2) with x2 and y2
exclusive, so that width = x2 - x1. Labels start at 1; 0 is ``__background__`` as in torchvision.
Images are RGB, uint8 [H, W, 3] as arrays and uint8 or float in [0, 1] [3, H, W] as tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict

if TYPE_CHECKING:
    import torch

ResizeMode = Literal["fit", "stretch", "short", "crop"]
WholeResize = Literal["fit", "stretch", "short"]  # of which each pixel of the image can be told

# The class index of pixels without a class, in every mask in memory (files may differ).
IGNORE = 255


class Size(NamedTuple):
    """An image size in pixels, in the order of ``--imgsz``."""

    width: int
    height: int


class _Found(TypedDict):
    boxes: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor


class Detections(_Found, total=False):
    """What a detector answers for one image, best first (torchvision's keys).

    boxes: float32 [N, 4], xyxy in pixels of the image handed in; scores: float32 [N] in [0, 1];
    labels: int64 [N], from 1; ids: int64 [N], of a video's objects, from 1 (0: none so far), where
    they are tracked.
    """

    ids: torch.Tensor


class DetectionTarget(TypedDict):
    """The truth of one image: boxes float32 [N, 4] xyxy in its pixels, labels int64 [N] from 1."""

    boxes: torch.Tensor
    labels: torch.Tensor


class SegmentationTarget(TypedDict):
    """The truth of one image: mask uint8 [H, W], class indices from 0, IGNORE where unknown."""

    mask: torch.Tensor


class ObjectTarget(TypedDict):
    """The truth of one image: masks uint8 [N, H, W] of 0 and 1, which may overlap; labels int64
    [N], class indices from 0."""

    masks: torch.Tensor
    labels: torch.Tensor


class DepthTarget(TypedDict):
    """The truth of one image: depth float32 [H, W] in metres, 0 where it is not measured."""

    depth: torch.Tensor


@dataclass(frozen=True)
class FeatureShape:
    """One feature map of a backbone or neck: channels, and input pixels per cell."""

    channels: int
    stride: int


@dataclass(frozen=True)
class Geometry:
    """How an original image became the model's input.

    original: size before; resized: size after; a point moves by x * resized.width /
    original.width (likewise y). Padding goes to the right and the bottom only, so it does not
    move points.
    """

    original: Size
    resized: Size

    @property
    def scale(self) -> tuple[float, float]:
        """(x, y) factors from original pixels to resized pixels."""
        return (
            self.resized.width / self.original.width,
            self.resized.height / self.original.height,
        )
