"""The table of detection heads. A new head is a file beside this one and a row here (and its
name in ``HEADS`` of src/detection/settings.py)."""

from __future__ import annotations

from collections.abc import Callable

from src.core.registry import Registry
from src.detection.heads.base import Detector, Parts
from src.detection.heads.deimv2 import Deimv2
from src.detection.heads.fcos import FCOS
from src.detection.heads.retinanet import RetinaNet
from src.detection.heads.ssd import SSD

HEAD_BUILDERS: Registry[Callable[[Parts], Detector]] = Registry(
    "detection head", {"ssd": SSD, "retinanet": RetinaNet, "fcos": FCOS, "deimv2": Deimv2}
)
