"""A trained segmenter from its checkpoint alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.predict.restore import Trained, restore
from src.segmentation.model import build_segmenter

if TYPE_CHECKING:
    from src.predict.settings import IdentityOptions
    from src.segmentation.segmenter import Segmenter


def restore_segmenter(
    path: Path, identity: IdentityOptions | None = None, imgsz: Sequence[int] | None = None
) -> Trained[Segmenter]:
    """See ``src.predict.restore.restore``; a checkpoint's ``colours`` are in its config."""
    return restore(path, "segmentation", _build, identity, imgsz, classes_key="ALL_CLASSES")


def _build(content: dict[str, Any]) -> Segmenter:
    return build_segmenter(
        content["backbone"]["name"],
        len(content["classes"]),
        head=content["head"],
        hub="bundled",
        feature_extractor=content["backbone"]["feature_extractor"],
        channels=content["config"]["head_channels"],
    )
