"""The table of detection heads. A new head is a file beside this one and a row here (and its
name in ``HEADS`` of src/detection/settings.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from src.backbones.base import Backbone
from src.core.registry import Registry
from src.detection.heads import deimv2, fcos, retinanet, ssd
from src.detection.heads.base import Detector, FeatureExtractor, build_neck
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


def dense(head: Callable[..., Detector]) -> HeadBuilder:
    """The builder of a head that works on any neck: the last map, or the pyramid."""

    def build(
        backbone: Backbone,
        num_classes: int,
        *,
        feature_extractor: FeatureExtractor,
        channels: int,
        transform: InputTransform,
        nms: float,
    ) -> Detector:
        neck = build_neck(backbone, feature_extractor, channels)
        return head(backbone, neck, num_classes, transform, nms=nms)

    return build


HEAD_BUILDERS: Registry[HeadBuilder] = Registry(
    "detection head",
    {
        "ssd": dense(ssd.SSD),
        "retinanet": dense(retinanet.RetinaNet),
        "fcos": dense(fcos.FCOS),
        "deimv2": deimv2.build,
    },
)
