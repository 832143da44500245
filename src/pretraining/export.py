"""The trained backbone as a file of its own, in Meta's names and layout, with a card."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
import yaml

from ..backbones.build import build_backbone
from ..backbones.catalog import CATALOG
from ..core.errors import UserError
from ..core.files import atomic_path, write_text
from ..engine.checkpoint import load_checkpoint

log = logging.getLogger(__name__)


def trained_backbone(model: Any) -> Any:
    """What a model in training is for: the teacher's backbone, of distillation to tokens the
    student."""
    student = model.student
    if isinstance(student, torch.nn.ModuleDict):
        return model.teacher["backbone"]
    return student


def export(path: Path, out: Path | None = None, part: str = "teacher") -> Path:
    """Write the backbone of a train_ssl checkpoint, and its card beside it (.yaml).

    A backbone of the catalog is written as Meta's files are, so that this toolkit (--weights), the
    official hubs and timm load it; another network as the state dict of its own library. UserError.
    """
    content = load_checkpoint(path, "pretraining")
    name, tokens = content["backbone"]["name"], content["head"] == "tokens"
    out = out or path.with_name("backbone.pth")
    prefix = "student." if tokens else f"{part}.backbone."
    weights = {k[len(prefix) :]: v for k, v in content["model"].items() if k.startswith(prefix)}
    if not weights:
        raise UserError(f"{path} holds no {part}; give --part student")
    if name in CATALOG:
        backbone = build_backbone(name, weights="none", hub="bundled", fine_tune=True)
        backbone.load_state_dict(_with_mask_token(backbone, weights))
        state = backbone.hub_model.official_state()
    else:
        state = {k.removeprefix("network."): v for k, v in weights.items()}
    with atomic_path(out) as temporary:
        torch.save({key: value.cpu().clone() for key, value in state.items()}, temporary)
    card = out.with_suffix(".yaml")
    write_text(card, yaml.safe_dump(card_of(content, name, part), sort_keys=False))
    log.info("backbone: %s, with its card %s", out, card.name)
    return out


def _with_mask_token(backbone: Any, weights: dict[str, Any]) -> dict[str, Any]:
    """Make room for a mask token that the weights hold; Meta's names (of a clone) become ours."""
    weights = backbone.adapt_state_dict(weights, "")
    if "hub_model.mask_token" in weights and hasattr(backbone.hub_model, "learn_mask_token"):
        backbone.hub_model.learn_mask_token()
    return weights


def card_of(content: dict[str, Any], name: str, part: str) -> dict[str, Any]:
    """What a stranger needs to know of the file."""
    config = content["config"]
    left_out = {"out_dir", "device", "workers", "dataset", "images", "skip_check", "save_samples"}
    card = {
        "backbone": name,
        "mean": content["backbone"].get("mean"),
        "std": content["backbone"].get("std"),
        "use": f"--model-name {name} --weights backbone.pth"
        if name in CATALOG
        else f"{name.replace('/', ': ')}, load_state_dict",
        "part": "student" if content["head"] == "tokens" else part,
        "start": config["weights"],
        "teacher": config["teacher"],
        "data": content.get("data", {}),
        "epochs": content["epoch"],
        "steps": content["epoch"] * content["steps_per_epoch"],
        "preset": config["config"],
        "metrics": {k: round(float(v), 5) for k, v in content["metrics"].items()},
        "options": {k: v for k, v in config.items() if k not in left_out},
    }
    return {key: value for key, value in card.items() if value not in (None, {}, "")}
