"""The table of detection heads. A new head is a file beside this one and a row here (and its
name in ``HEADS`` of src/detection/settings.py)."""

from __future__ import annotations

from typing import Protocol

from src.backbones.base import Backbone
from src.core.registry import Registry
from src.detection.heads import deimv2, fcos, retinanet, ssd
from src.detection.heads.base import Detector, FeatureExtractor
from src.detection.transform import InputTransform


class HeadBuilder(Protocol):
    """Builds a detector. num_classes counts the background; channels: width of the neck; nms:
    IoU above which the weaker of two boxes goes (heads without NMS do not look at it)."""

    def __call__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        feature_extractor: FeatureExtractor,
        channels: int,
        transform: InputTransform,
        nms: float,
    ) -> Detector: ...


HEAD_BUILDERS: Registry[HeadBuilder] = Registry(
    "detection head",
    {
        "ssd": ssd.build,
        "retinanet": retinanet.build,
        "fcos": fcos.build,
        "deimv2": deimv2.build,
    },
)
