"""A trained detector from its checkpoint alone, checked against what the user says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.core.config import load_yaml
from src.core.errors import UserError
from src.core.structures import ResizeMode, Size

if TYPE_CHECKING:
    from src.detection.heads.base import Detector
    from src.predict.settings import IdentityOptions


@dataclass
class TrainedDetector:
    """A detector in eval mode with all that inference needs. names[0] is ``__background__``."""

    model: Detector
    names: list[str]
    image_size: Size
    resize: ResizeMode
    checkpoint: dict[str, Any]


def restore_detector(
    path: Path, identity: IdentityOptions | None = None, imgsz: Sequence[int] | None = None
) -> TrainedDetector:
    """Rebuild the detector of a checkpoint through the bundled hub; needs nothing else.

    identity: what the user says of it (--model-name, --head, --config): a contradiction is a
    UserError that names both sides. imgsz: width and height instead of those of training.
    """
    from src.detection.model import build_detector
    from src.engine.checkpoint import load_checkpoint, load_weights

    content = load_checkpoint(path, "detection")
    if identity is not None:
        check_identity(content, identity, path)
    config = content["config"]
    model = build_detector(
        content["backbone"]["name"],
        len(content["classes"]),
        head=content["head"],
        hub="bundled",
        feature_extractor=content["backbone"]["feature_extractor"],
        channels=config["pyramid_channels"],
        nms=config["nms"],
    )
    state = model.backbone.adapt_state_dict(content["model"], "backbone.")
    load_weights(model, {**content, "model": state}, path)
    size = Size(imgsz[0], imgsz[-1]) if imgsz else Size(*content["image_size"])
    return TrainedDetector(model.eval(), content["classes"], size, content["resize"], content)


def check_identity(content: dict[str, Any], identity: IdentityOptions, path: Path) -> None:
    """UserError when --model-name, --head or the classes of --config contradict the checkpoint."""
    faults = []
    for flag, given, found in (
        ("--model-name", identity.model_name, content["backbone"]["name"]),
        ("--head", identity.head, content["head"]),
    ):
        if given is not None and given != found:
            faults.append(f"{flag} says {given}, the checkpoint has {found}")
    if identity.config is not None:
        named = load_yaml(identity.config).get("CLASSES")
        known = content["classes"]
        if isinstance(named, list) and named[:1] != ["__background__"]:
            named = ["__background__", *named]
        if named != known:
            faults.append(
                f"--config {identity.config} has the classes {_short(named)}, "
                f"the checkpoint has {_short(known)}"
            )
    if faults:
        raise UserError(
            f"{path}: {'; '.join(faults)}. Leave the flag out (the checkpoint knows), or give the "
            "checkpoint that you mean"
        )


def _short(names: Any) -> str:
    if not isinstance(names, list):
        return "(none)"
    shown = ", ".join(str(name) for name in names[1:7])
    return f"{len(names) - 1}: {shown}{', ...' if len(names) > 7 else ''}"
