"""A trained classifier from its checkpoint alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..predict.restore import Trained, model_arguments, restore
from .heads.knn import KnnHead
from .model import build_classifier

if TYPE_CHECKING:
    from ..predict.settings import KnownOptions
    from .classifier import Classifier


def restore_classifier(
    path: Path,
    identity: KnownOptions | None = None,
    imgsz: Sequence[int] | None = None,
    weights: str | None = None,
) -> Trained[Classifier]:
    """See ``src.predict.restore.restore``."""
    key = "CLASS_NAMES"
    return restore(
        path, "classification", _build, identity, imgsz, classes_key=key, weights=weights
    )


def _build(content: dict[str, Any]) -> Classifier:
    model = build_classifier(
        **model_arguments(content),
        num_classes=len(content["classes"]),
        layers=content["config"]["head_layers"],
        multi_label=content["multi_label"],
    )
    weights = content["model"]  # none where an exported file answers
    if isinstance(model.head, KnnHead) and weights:
        model.head.reserve(weights["head.bank"].shape, weights["head.marks"])
    return model
