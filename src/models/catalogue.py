"""What a published model is: where its files are, whose they are, what was reported of it, and how
its weights become a checkpoint of ours. The rows are beside their conversions (deimv2, dinov2).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.config import load_yaml
from ..core.paths import SHIPPED, weights_folder

if TYPE_CHECKING:
    from torch import Tensor

    State = Mapping[str, Tensor]

HUGGING_FACE = "https://huggingface.co"


@dataclass(frozen=True)
class File:
    """One file to fetch. name: in the weights folder of ``family`` (``hub/`` for what is a model's
    own); megabytes: about; sha256: where one is published (None: none is); url None: its owner
    hands it out himself, and it has to be in the weights folder."""

    name: str
    url: str | None
    megabytes: float
    family: str = "dinov3"
    sha256: str | None = None
    backbone: bool = False

    @property
    def path(self) -> Path:
        """Where it is, or will be."""
        return weights_folder(self.family) / self.name


@dataclass(frozen=True)
class PublishedModel:
    """One row. figure: what its authors report, and source: where they do; page: the project's;
    build: this row and the state dict of each file -> the checkpoint's content, without what all
    have alike (``engine.checkpoint``). settings: the options that say what the model is.
    """

    name: str
    task: str
    backbone: str
    head: str
    files: tuple[File, ...]
    licence: str
    page: str
    build: Callable[[PublishedModel, Sequence[State]], dict[str, Any]]
    figure: str = "-"
    source: str = "-"
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def megabytes(self) -> float:
        """Of all its files."""
        return sum(file.megabytes for file in self.files)


def on_hugging_face(repository: str, file: str) -> str:
    """The address of a file of a model's repository there, or at ``HF_ENDPOINT`` (a mirror)."""
    endpoint = os.environ.get("HF_ENDPOINT") or HUGGING_FACE
    return f"{endpoint.rstrip('/')}/{repository}/resolve/main/{file}"


def shipped_dataset(yaml: str) -> dict[str, Any]:
    """The data set that a shipped YAML describes: its classes are those of the models trained on
    it, and evaluation looks there where no --config is given."""
    return {name: value for name, value in load_yaml(SHIPPED / yaml).items() if name != "TRAIN"}


def content(
    model: PublishedModel,
    weights: Mapping[str, Tensor],
    classes: Sequence[str],
    image_size: tuple[int, int],
    resize: str,
    dataset: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The fields of a checkpoint (docs/architecture.md) of a published model. image_size: width and
    height; more: fields of the task's own."""
    settings = {"feature_extractor": "multi", **model.settings}
    return {
        "task": model.task,
        "head": model.head,
        "backbone": {"name": model.backbone, "feature_extractor": settings["feature_extractor"]},
        "image_size": list(image_size),
        "resize": resize,
        "classes": list(classes),
        "config": {
            "model_name": model.backbone,
            "head": model.head,
            "imgsz": list(image_size),
            "resize": resize,
            "dataset": dict(dataset or {}),
            **settings,
        },
        "model": dict(weights),
        **more,
    }
