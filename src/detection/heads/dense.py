"""What detectors with an answer for each anchor have in common."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

from ...core.structures import Detections
from .base import Detector, Parts, build_neck
from .postprocess import suppress

D = TypeVar("D", bound="DenseDetector")


class DenseDetector(Detector):
    """Predictions at each cell of a neck (the last map, or the pyramid), thinned out by NMS.

    score: of a detection, at least; candidates: of a level or class, before NMS; limit: of an
    image, after it. Subclasses fill ``assemble``, ``losses`` and ``detect``.
    """

    score, candidates, limit = 0.05, 1000, 100

    def __init__(self, parts: Parts) -> None:
        neck = build_neck(parts.backbone, parts.feature_extractor, parts.channels)
        super().__init__(parts.backbone, neck, parts.num_classes, parts.transform)
        self.nms = parts.nms
        self.assemble([shape.stride for shape in neck.output_shape().values()])

    def assemble(self, strides: list[int]) -> None:
        """Make anchors, head and box coder for levels of these strides."""
        raise NotImplementedError

    def suppress(
        self, boxes: Tensor, scores: Tensor, labels: Tensor, sizes: list[tuple[int, int]]
    ) -> list[Detections]:
        """Candidates [B, K, 4], [B, K], [B, K] -> detections of each image, best first."""
        score, nms, limit = self.score, self.nms, self.limit
        return suppress(boxes, scores, labels, sizes, score=score, iou=nms, limit=limit)
