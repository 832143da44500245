"""The model of a checkpoint without its weights, for which an exported file answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ...backbones.batching import FeatureModel
from ...engine.checkpoint import no_word_on_weights
from .description import Description, read_description
from .opening import Opened

M = TypeVar("M")


def read_exported(path: Path) -> dict[str, Any]:
    """What a checkpoint's content would be, of an exported file: no weights, and under
    ``exported`` the file's description. UserError."""
    description = read_description(path)
    return {**description["checkpoint"], "model": {}, "exported": description}


def stand_in(build: Callable[[dict[str, Any]], M], content: dict[str, Any], path: Path) -> M:
    """The task's own model, so that all that follows the layers is what it always is; these are
    made without memory, and the file answers in their place."""
    with torch.device("meta"), no_word_on_weights():
        built: Any = build(content)
    model: FeatureModel = built
    for name, _ in [*model.named_children()]:
        if name not in ("backbone", "criterion"):  # the latter says what logits mean
            setattr(model, name, nn.Identity())
    model.backbone.hub_model = nn.Identity()
    for module in model.modules():
        module._buffers.clear()
    for name in ("mean", "std"):
        values = torch.tensor(getattr(model.backbone.statistics, name)).view(3, 1, 1)
        model.backbone.register_buffer(name, values, persistent=False)
    description: Description = content["exported"]
    _, _, height, width = description["input"]["shape"]
    model.fixed = (height, width)
    model.answered_by(Opened(path, description))
    return built
