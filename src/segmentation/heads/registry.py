"""The table of segmentation heads. A new head is a file beside this one and a row here (and its
name in ``HEADS`` of src/segmentation/settings.py)."""

from __future__ import annotations

from typing import Protocol

from ...core.registry import Registry
from ...core.structures import FeatureShape
from .base import SegmentationHead
from .conv import ConvHead
from .dpt import DptHead
from .eomt import EomtHead
from .fpn import FpnHead
from .linear import LinearHead


class HeadBuilder(Protocol):
    """Builds a head on maps of these shapes (shallow to deep); channels: its width inside."""

    def __call__(
        self, shapes: dict[str, FeatureShape], num_classes: int, channels: int
    ) -> SegmentationHead: ...


HEAD_BUILDERS: Registry[HeadBuilder] = Registry(
    "segmentation head",
    {
        "linear": LinearHead,
        "conv": ConvHead,
        "fpn": FpnHead,
        "dpt": DptHead,
        "eomt": EomtHead,
    },
)
