"""From options to the model that is trained, checked for what does not go together."""

from __future__ import annotations

import copy
import logging
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..backbones.base import Backbone
from ..backbones.build import build_backbone
from ..backbones.catalog import CATALOG
from ..core.errors import UserError
from ..engine.checkpoint import load_checkpoint
from .crops import CropSizes
from .model import Recipe, SelfDistillation, build_parts, set_drop_path
from .tokens import TokenDistillation, student_network

log = logging.getLogger(__name__)
RECIPE = [field.name for field in fields(Recipe)]


def recipe_of(options: Any) -> Recipe:
    """The losses' part of the options (or of a checkpoint's config)."""
    values: dict[str, Any] = options if isinstance(options, dict) else dict(options)
    return Recipe(**{name: values[name] for name in RECIPE})


def crop_sizes(options: Any) -> CropSizes:
    """The crops' part of the options; distillation by tokens takes one crop an image."""
    alone = options.head == "tokens"
    return CropSizes(
        globals=1 if alone else 2,
        global_size=options.global_size,
        local_size=options.local_size,
        locals=0 if alone else options.locals,
        global_scale=tuple(options.global_scale),
        local_scale=tuple(options.local_scale),
        gram_size=options.gram_size if options.gram else None,
    )


def check_sizes(options: Any, divisor: int, what: str) -> None:
    """UserError for crops that are no multiple of what the backbone's patches need."""
    names = ["global_size", "local_size"] if options.head != "tokens" else ["global_size"]
    names += ["gram_size"] if options.gram and options.gram_size else []
    for name in names:
        size = getattr(options, name)
        if size % divisor:
            raise UserError(
                f"--{name.replace('_', '-')} {size} is no multiple of {divisor}, which {what} "
                f"needs; take {-(-size // divisor) * divisor}"
            )


def check_recipe(options: Any, world: int) -> None:
    """UserError for losses that cannot be computed as asked."""
    spec = CATALOG[options.model_name]
    if options.ibot and not spec.is_vit:
        raise UserError(
            f"iBOT masks patches and {options.model_name} has none: give --ibot 0 (DINO, KoLeo and "
            "Gram work)"
        )
    if options.ibot and (options.global_size // (spec.patch or 32)) < 2:
        raise UserError(
            f"--global-size {options.global_size} is one patch: iBOT needs at least "
            f"{2 * (spec.patch or 16)}"
        )
    own = options.batch // world
    if options.koleo and own < 2 and not (options.koleo_everywhere and world > 1):
        raise UserError(
            "one image a process: KoLeo compares images and needs two; give a larger --batch, "
            "--koleo 0" + (", or --koleo-everywhere" if world > 1 else "")
        )
    if options.gram_size and not options.gram:
        raise UserError("--gram-size has no effect without --gram")
    if options.gram_refresh and (not options.gram or options.gram_teacher != "start"):
        raise UserError("--gram-refresh needs --gram and --gram-teacher start")
    if options.gram_size and options.gram_teacher == "ema":
        raise UserError("--gram-size needs --gram-teacher start: the moving average sees --global")


def start_backbone(options: Any) -> Backbone:
    """The backbone that is trained, from its weights or from random ones."""
    return build_backbone(
        options.model_name,
        weights=options.weights,
        hub=options.hub,
        repo_dir=options.repo_dir,
        feature_extractor="last",
        fine_tune=True,
    )


def build_self_distillation(options: Any) -> SelfDistillation:
    """Student, teacher, and Gram's frozen start. UserError."""
    backbone = start_backbone(options)
    anchor = None
    if options.gram and options.gram_teacher == "start":
        anchor = copy.deepcopy(backbone)
    guide = load_guide(options) if options.teacher else None
    return SelfDistillation(backbone, recipe_of(options), anchor=anchor, guide=guide)


def build_token_distillation(options: Any) -> TokenDistillation:
    """A frozen backbone as the teacher, any network as the student. UserError."""
    if Path(options.teacher).suffix == ".pth":
        teacher: Any = load_parts(Path(options.teacher))[0]["backbone"]
    else:
        teacher = build_backbone(
            options.teacher,
            weights=options.teacher_weights,
            hub=options.hub,
            repo_dir=options.repo_dir,
            feature_extractor="last",
        )
    if "/" in options.model_name:
        if options.weights not in ("none", "pretrained"):
            raise UserError(
                f"--weights {options.weights}: {options.model_name} starts from 'none' or from "
                "'pretrained' (its library's own)"
            )
        student: nn.Module = student_network(
            options.model_name, options.weights == "pretrained", options.global_size
        )
    else:
        student = start_backbone(options)
        if options.drop_path:
            set_drop_path(student, options.drop_path)
    return TokenDistillation(
        student, teacher, queue=options.queue, temperature=options.distill_temp
    )


def load_parts(path: Path) -> tuple[nn.ModuleDict, dict[str, Any]]:
    """The teacher {"backbone", "dino_head", ...} of a train_ssl checkpoint, and its config."""
    content = load_checkpoint(path, "pretraining")
    config, name = content["config"], content["backbone"]["name"]
    if name not in CATALOG:
        raise UserError(f"{path} holds {name}, which is no backbone of the catalog")
    prefix = "student." if content["head"] == "tokens" else "teacher."
    weights = {k[len(prefix) :]: v for k, v in content["model"].items() if k.startswith(prefix)}
    backbone = build_backbone(
        name, weights="none", hub="bundled", fine_tune=True, **statistics_in(content)
    )
    if content["head"] == "tokens":
        parts = nn.ModuleDict({"backbone": backbone})
        weights = {f"backbone.{key}": value for key, value in weights.items()}
    else:
        parts = build_parts(backbone, backbone.hub_model.embed_dim, recipe_of(config))
    parts.load_state_dict(backbone.adapt_state_dict(weights, "backbone."))
    return parts.requires_grad_(False).eval(), config


def statistics_in(content: dict[str, Any]) -> dict[str, Any]:
    """mean and std of a checkpoint's backbone, as ``build_backbone`` takes them."""
    return {key: content["backbone"].get(key) for key in ("mean", "std")}


def load_guide(options: Any) -> nn.ModuleDict:
    """The frozen teacher with heads that --distill heads learns from. UserError."""
    if Path(options.teacher).suffix != ".pth":
        raise UserError(
            f"--distill heads: {options.teacher} alone has no heads (Meta published none). Give "
            "last_model.pth of a train_ssl run as --teacher (the preset continue.yaml with "
            "--head-epochs as long as --epochs trains heads alone), or --distill tokens"
        )
    guide, config = load_parts(Path(options.teacher))
    for name in ("prototypes",):
        if config[name] != getattr(options, name):
            raise UserError(
                f"--{name} {getattr(options, name)}: the teacher {options.teacher} has "
                f"{config[name]}; give --{name} {config[name]}"
            )
    if options.ibot:
        theirs, ours = (CATALOG[n].patch for n in (config["model_name"], options.model_name))
        if "ibot_head" not in guide or theirs != ours:
            raise UserError(
                f"--ibot: the teacher ({config['model_name']}) has "
                + ("no iBOT head" if "ibot_head" not in guide else f"patches of {theirs} pixels")
                + "; give --ibot 0"
            )
    return guide


def with_heads(options: Any) -> bool:
    """Whether --teacher is to be learnt from through its heads."""
    if options.distill != "auto":
        return options.distill == "heads"
    path = Path(options.teacher)
    if path.suffix != ".pth" or "/" in options.model_name:
        return False
    return load_checkpoint(path, "pretraining")["head"] != "tokens"


def patch_grid(options: Any) -> tuple[int, int] | None:
    """(h, w) of a global crop's patches where masks are wanted."""
    if options.head == "tokens" or not options.ibot:
        return None
    side = options.global_size // (CATALOG[options.model_name].patch or 32)
    return side, side


def low_precision(options: Any, device: torch.device) -> bool:
    """Whether heavy operations run in 16 bits."""
    from ..engine.precision import choose_type

    return choose_type(options.precision, device, options.model_name) != torch.float32
