"""A trained model of depth from its checkpoint alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..predict.restore import Trained, model_arguments, restore
from ..predict.settings import KnownOptions
from .heads.base import Range
from .model import build_depther

if TYPE_CHECKING:
    from .depther import Depther


def restore_depther(
    path: Path,
    model_name: str | None = None,
    head: str | None = None,
    imgsz: Sequence[int] | None = None,
    weights: str | None = None,
) -> Trained[Depther]:
    """See ``src.predict.restore.restore``; model_name, head: what the checkpoint must have."""
    known = KnownOptions(model_name=model_name, head=head)
    return restore(path, "depth", _build, known, imgsz, weights=weights)


def span_of(config: dict[str, Any]) -> Range:
    """The depths that a checkpoint's model can answer."""
    dataset = config["dataset"]
    return Range(dataset["MIN_DEPTH"], dataset["MAX_DEPTH"], config["bins"], config["bins_norm"])


def _build(content: dict[str, Any]) -> Depther:
    config = content["config"]
    return build_depther(
        **model_arguments(content),
        span=span_of(config),
        channels=config["head_channels"],
    )
