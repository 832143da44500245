"""A trained model from its checkpoint alone, checked against what the user says of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args

from torch import nn

from ..core.config import image_size, load_yaml
from ..core.errors import UserError
from ..core.structures import ResizeMode, Size
from ..engine.checkpoint import load_checkpoint, load_weights, no_word_on_weights
from ..engine.precision import choose_device
from .frozen import known_backbone, share
from .runtimes.description import is_exported
from .runtimes.stand_in import read_exported, stand_in

if TYPE_CHECKING:
    from .predictor import Predictor
    from .settings import KnownOptions, ModelOptions

M = TypeVar("M", bound=nn.Module)


@dataclass
class Trained(Generic[M]):
    """A model in eval mode with all that inference needs; names: its classes."""

    model: M
    names: list[str]
    image_size: Size
    resize: ResizeMode
    checkpoint: dict[str, Any]


def restore(
    path: Path,
    task: str,
    build: Callable[[dict[str, Any]], M],
    identity: KnownOptions | None = None,
    imgsz: Sequence[int] | None = None,
    *,
    classes_key: str = "CLASSES",
    weights: str | None = None,
) -> Trained[M]:
    """Rebuild the model of a checkpoint; needs nothing else (of one of --head-only its backbone).
    A file that ``src.export`` wrote makes the same model, for which it answers itself.

    build: the checkpoint's content -> the model with any weights, through the bundled hub, its
    backbone as ``model.backbone``. identity: what the user says of it (--model-name, --head,
    --config): a contradiction is a UserError that names both sides. imgsz: width and height
    instead of those of training. classes_key: the key of the class names in ``--config``. weights:
    --backbone-weights (default: those of ``identity``).
    """
    content = read_model(path, task)
    try:
        trained_size = image_size(content["image_size"])
    except (TypeError, ValueError) as error:
        found = str(content["image_size"])[:60]
        raise UserError(f"{path} is damaged: its image_size is {found}; {error}") from None
    if content["resize"] not in get_args(ResizeMode):
        raise UserError(f"{path} is damaged: its resize is {content['resize'][:60]!r}")
    if identity is not None:
        check_identity(content, identity, path, classes_key)
        weights = weights or getattr(identity, "backbone_weights", None)
    size = Size(imgsz[0], imgsz[-1]) if imgsz else trained_size
    if "exported" in content:
        if size != trained_size:
            raise UserError(
                f"{path} was exported for --imgsz {trained_size.width} {trained_size.height} "
                "alone: leave --imgsz out, or export it for the other size"
            )
        model = stand_in(build, content, path)
        return Trained(model.eval(), content["classes"], size, content["resize"], content)
    content, key = known_backbone(content, path, weights)
    with no_word_on_weights():
        model = build(content)
    backbone: Any = model.backbone
    state = backbone.adapt_state_dict(content["model"], "backbone.")
    load_weights(model, {**content, "model": state}, path)
    share(key, backbone.hub_model)
    if content.get("padding") == "centre":
        model.centred = True  # type: ignore[assignment]
    return Trained(model.eval(), content["classes"], size, content["resize"], content)


def read_model(path: Path, task: str | None = None, *, weights: bool = True) -> dict[str, Any]:
    """A checkpoint's content (``load_checkpoint``), or an exported file's without weights.
    UserError, also when it is of another task than ``task``."""
    if not is_exported(path):
        return load_checkpoint(path, task, weights=weights)
    content = read_exported(path)
    if task is not None and content["task"] != task:
        raise UserError(f"{path} is a model of {content['task']}, and this is {task}")
    return content


def model_arguments(content: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint's content says to the task's builder of models, whatever the task."""
    backbone = content["backbone"]
    return {
        "model_name": backbone["name"],
        "head": content["head"],
        "hub": "bundled",
        "feature_extractor": backbone["feature_extractor"],
        "mean": backbone.get("mean"),  # None, ImageNet's, in checkpoints before they said it
        "std": backbone.get("std"),
        "weights": backbone.get("weights", "none"),
        "hub_model": backbone.get("hub_model"),
        "source": backbone.get("source"),  # of models that are not Meta's
    }


def resize_of(options: ModelOptions, trained: Trained) -> ResizeMode:
    """--resize, else training's. UserError for one that cuts off what the task answers for."""
    mode = options.resize or trained.resize
    if mode == "crop" and trained.checkpoint["task"] != "classification":
        raise UserError(
            f"--resize crop cuts off the borders, and {trained.checkpoint['task']} is of the whole "
            "image: give fit, stretch or short"
        )
    return mode


def make_ready(trained: Trained, options: ModelOptions) -> None:
    """What the options of inference say of the model itself: --compile. UserError for what an
    exported file, whose types and code are its own, will not follow."""
    if "exported" not in trained.checkpoint:
        if options.compile:
            from ..engine.compiling import compile_inference

            compile_inference(trained.model, choose_device(options.device))
        return
    if options.precision not in ("auto", "32"):
        raise UserError(
            f"--precision {options.precision}: {options.model} is exported, and computes in the "
            "types that it was written in; leave --precision out"
        )
    if options.compile:
        raise UserError(f"--compile: {options.model} is exported, and compiled by its runtime")


def predictor_of(trained: Trained, options: ModelOptions, **how: Any) -> Predictor[Any]:
    """A predictor of a trained model as the options of inference say; how: what else it takes, or
    what it is to take instead (model, resize, batch); kind: another class of predictor."""
    from .predictor import Predictor

    make_ready(trained, options)
    given = {
        "model": trained.model,
        "image_size": trained.image_size,
        "resize": resize_of(options, trained),
        "device": options.device,
        "precision": options.precision,
        "batch": options.batch,
    }
    kind = how.pop("kind", Predictor)
    return kind(**{**given, **how})


def check_identity(
    content: dict[str, Any], identity: KnownOptions, path: Path, classes_key: str = "CLASSES"
) -> None:
    """UserError when --model-name, --head or the classes of --config contradict the checkpoint."""
    faults = []
    for flag, given, found in (
        ("--model-name", identity.model_name, content["backbone"]["name"]),
        ("--head", identity.head, content["head"]),
    ):
        if given is not None and given != found:
            faults.append(f"{flag} says {given}, the checkpoint has {found}")
    if identity.config is not None:
        said = load_yaml(identity.config)
        named = said.get(classes_key, said.get("CLASSES"))
        known = content["classes"]
        if _without_background(named) != _without_background(known):
            faults.append(
                f"--config {identity.config} has the classes {_short(named)}, "
                f"the checkpoint has {_short(known)}"
            )
    if faults:
        raise UserError(
            f"{path}: {'; '.join(faults)}. Leave the flag out (the checkpoint knows), or give the "
            "checkpoint that you mean"
        )


def _without_background(names: Any) -> Any:
    plain = isinstance(names, list) and names[:1] == ["__background__"]
    return names[1:] if plain else names


def _short(names: Any) -> str:
    if not isinstance(names, list):
        return "(none)"
    plain = [str(name) for name in names if name != "__background__"]
    return f"{len(plain)}: {', '.join(plain[:6])}{', ...' if len(plain) > 6 else ''}"
