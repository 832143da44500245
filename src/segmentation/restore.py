"""A trained segmenter from its checkpoint alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..predict.restore import Trained, model_arguments, restore
from .model import build_segmenter

if TYPE_CHECKING:
    from ..predict.settings import IdentityOptions
    from .segmenter import Segmenter


def restore_segmenter(
    path: Path,
    identity: IdentityOptions | None = None,
    imgsz: Sequence[int] | None = None,
    weights: str | None = None,
) -> Trained[Segmenter]:
    """See ``src.predict.restore.restore``; a checkpoint's ``colours`` are in its config."""
    key = "ALL_CLASSES"
    return restore(path, "segmentation", _build, identity, imgsz, classes_key=key, weights=weights)


def _build(content: dict[str, Any]) -> Segmenter:
    arguments = model_arguments(content)
    if content["head"] == "eomt" and "head.tail.norm.weight" not in content["model"]:
        arguments["head"] = "queries"  # its name until EoMT itself came
    return build_segmenter(
        **arguments,
        num_classes=len(content["classes"]),
        channels=content["config"]["head_channels"],
    )
