"""The table of depth heads. A new head is a file beside this one and a row here (and its name in
``Head`` of src/depth/settings.py)."""

from __future__ import annotations

from collections.abc import Callable

from ...core.registry import Registry
from ...core.structures import FeatureShape
from .base import DepthHead, Range
from .dinov2 import Dinov2DptHead, Dinov2LinearHead
from .dpt import DptHead
from .linear import LinearHead

# (shapes of the maps, depths to answer, width inside) -> head
HeadBuilder = Callable[[dict[str, FeatureShape], Range, int], DepthHead]

HEAD_BUILDERS: Registry[HeadBuilder] = Registry(
    "depth head",
    {
        "linear": LinearHead,
        "dpt": DptHead,
        "dinov2-linear": Dinov2LinearHead,
        "dinov2-dpt": Dinov2DptHead,
    },
)
