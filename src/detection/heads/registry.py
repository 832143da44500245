"""The table of detection heads. A new head is a file beside this one and a row here (and its
name in ``HEADS`` of src/detection/settings.py)."""

from __future__ import annotations

from collections.abc import Callable

from ...core.registry import Registry
from .atss import ATSS
from .base import Detector, Parts
from .deimv2 import Deimv2
from .fcos import FCOS
from .retinanet import RetinaNet
from .ssd import SSD

HEAD_BUILDERS: Registry[Callable[[Parts], Detector]] = Registry(
    "detection head",
    {"atss": ATSS, "ssd": SSD, "retinanet": RetinaNet, "fcos": FCOS, "deimv2": Deimv2},
)
