"""The table of segmentation heads. A new head is a file beside this one and a row here (and its
name in ``HEADS`` of src/segmentation/settings.py)."""

from __future__ import annotations

from ...core.registry import Registry
from .base import SegmentationHead
from .conv import ConvHead
from .dpt import DptHead
from .eomt import EomtHead
from .fpn import FpnHead
from .linear import LinearHead
from .queries import QueryHead

HEAD_BUILDERS: Registry[type[SegmentationHead]] = Registry(
    "segmentation head",
    {
        "linear": LinearHead,
        "conv": ConvHead,
        "fpn": FpnHead,
        "dpt": DptHead,
        "queries": QueryHead,
        "eomt": EomtHead,
    },
)
