"""A trained segmenter from its checkpoint alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ..predict.restore import Trained, model_arguments, restore
from .model import build_segmenter
from .segmenter import ObjectSegmenter, Segmenter

if TYPE_CHECKING:
    from ..predict.settings import IdentityOptions


def restore_segmenter(
    path: Path,
    identity: IdentityOptions | None = None,
    imgsz: Sequence[int] | None = None,
    weights: str | None = None,
) -> Trained[Segmenter]:
    """See ``src.predict.restore.restore``; a checkpoint's ``colours`` are in its config."""
    key = "ALL_CLASSES"
    trained = restore(
        path, "segmentation", _build, identity, imgsz, classes_key=key, weights=weights
    )
    square = trained.checkpoint.get("padding") == "square"
    if square and isinstance(trained.model, ObjectSegmenter):
        trained.model.square = trained.image_size.height, trained.image_size.width
    return trained


def _build(content: dict[str, Any]) -> Segmenter:
    arguments = model_arguments(content)
    weights = content["model"]  # none where an exported file answers
    if content["head"] == "eomt" and weights and "head.tail.norm.weight" not in weights:
        arguments["head"] = "queries"  # its name until EoMT itself came
    config = content["config"]
    model = build_segmenter(
        **arguments,
        num_classes=len(content["classes"]),
        channels=config["head_channels"],
        queries=config.get("queries"),
        task=task_of(content),
    )
    if "layer_norm_eps" in content:  # of a ViT that others have built
        for part in (model.backbone, getattr(model.head, "tail", None)):
            for layer in part.modules() if part else ():
                if isinstance(layer, nn.LayerNorm):
                    layer.eps = content["layer_norm_eps"]
    return model


def task_of(content: dict[str, Any]) -> str:
    """What a checkpoint segments: semantic (all before they said it), instance or panoptic."""
    return content["config"].get("task", "semantic")
