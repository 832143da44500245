"""Which detections the user wants to see: --classes, --roi, --max-det."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.registry import did_you_mean
from ..core.structures import Detections, Size
from ..predict.results import rows_of

if TYPE_CHECKING:
    from .settings import DetectionOutput

Select = Callable[[Detections, Size], Detections]


def selection(options: DetectionOutput, names: Sequence[str]) -> Select:
    """What keeps of an image's detections (best first, in its pixels) those that ``options`` want.

    UserError for a class that the model does not know.
    """
    labels = torch.tensor([_label(name, names) for name in options.classes or []])

    def select(found: Detections, size: Size) -> Detections:
        kept = torch.ones(len(found["labels"]), dtype=torch.bool)
        if options.classes:
            kept &= torch.isin(found["labels"], labels)
        if options.roi:
            kept &= inside(found["boxes"], options.roi, size)
        best = kept.nonzero().squeeze(1)[: options.max_det]
        return rows_of(found, best)

    return select


def _label(name: str, names: Sequence[str]) -> int:
    if name not in names[1:]:
        known = ", ".join(names[1:])
        raise UserError(f"--classes: no class '{name}'{did_you_mean(name, names)}; known: {known}")
    return names.index(name)


def inside(boxes: Tensor, roi: Sequence[float], size: Size) -> Tensor:
    """bool [N]: whether the centre of each box [N, 4] lies in the region (see --roi)."""
    points = np.array(roi, np.float32).reshape(-1, 2)
    if points.max() <= 1:
        points = points * np.array(size, np.float32)
    if len(points) == 2:
        (left, top), (right, bottom) = points
        points = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)
    centres = ((boxes[:, :2] + boxes[:, 2:]) / 2).tolist()
    return torch.tensor([cv2.pointPolygonTest(points, c, False) >= 0 for c in centres]).bool()
