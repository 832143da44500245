"""A trained detector from its checkpoint alone, checked against what the user says of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..predict.restore import Trained, model_arguments, restore
from .model import build_detector

if TYPE_CHECKING:
    from ..predict.settings import IdentityOptions
    from .heads.base import Detector


def restore_detector(
    path: Path,
    identity: IdentityOptions | None = None,
    imgsz: Sequence[int] | None = None,
    weights: str | None = None,
) -> Trained[Detector]:
    """See ``src.predict.restore.restore``; names[0] is ``__background__``."""
    return restore(path, "detection", _build, identity, imgsz, weights=weights)


def _build(content: dict[str, Any]) -> Detector:
    return build_detector(
        **model_arguments(content),
        num_classes=len(content["classes"]),
        channels=content["config"]["pyramid_channels"],
        nms=content["config"]["nms"],
        deimv2_size=content["config"].get("deimv2_size"),
    )
