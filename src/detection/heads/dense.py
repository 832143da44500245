"""What detectors with an answer for each anchor have in common."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...backbones.batching import FeatureMaps
from ...core.structures import Detections
from .base import Detector, Parts, build_neck
from .postprocess import Candidates, choose, cut_out, nms_within


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

    def of_each(self, answers: dict[str, Tensor], batch: FeatureMaps) -> list[Candidates]:
        """The best candidates of each image, and NMS's word."""
        return choose(answers, batch.sizes, score=self.score, iou=self.nms)

    def thinned(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """The ``limit`` best that NMS keeps, by steps that every runtime knows."""
        return nms_within(found, iou=self.nms, limit=self.limit)

    def keep_above(self, score: float) -> None:
        """A floor before NMS."""
        self.score = max(self.score, score - 1e-6)

    def finish(self, found: Any) -> Detections:
        """Those that NMS keeps, best first."""
        return cut_out(found, iou=self.nms, limit=self.limit)
