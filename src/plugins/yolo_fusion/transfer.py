"""Weights of a plain YOLO in a fused one, whose rows have other places."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import UserError
from .context import DinoContext
from .graph import plain_places

log = logging.getLogger(__name__)


def context_of(model: Any) -> DinoContext | None:
    """The context row of a YOLO, if it has one."""
    return next((part for part in model.modules() if isinstance(part, DinoContext)), None)


def take_weights(model: Any, source: Any) -> None:
    """Load what fits of ``source`` (both DetectionModel), as ultralytics does (class names too).

    Of a plain YOLO into a fused one, every tensor is taken: those whose input has grown by the
    context get 0 for it, so that the fused network starts as the plain one. A fused source brings
    its backbone's fingerprint; UserError when it has another context or backbone.
    """
    ours, theirs = context_of(model), context_of(source)
    if theirs is not None:
        kind, wanted = (f"{c.context} of {c.dino.name}" if c else "none" for c in (theirs, ours))
        if kind != wanted:
            raise UserError(f"the network to start from has the context {kind}, not {wanted}")
        if ours is not None and ours.dino.weights == theirs.dino.weights:
            ours.dino = theirs.dino
    if ours is None or theirs is not None:
        model.load(source)
        return
    wide = _wide_as(model, source)
    before = {key: value.shape for key, value in source.state_dict().items()}
    model.load(wide)
    own, given = model.state_dict(), wide.state_dict()
    taken = [key for key in own if key in given and own[key].shape == given[key].shape]
    whole = len([key for key in taken if before[_plain_key(key, model)] == own[key].shape])
    log.info(
        "%d of %d tensors are those of the plain YOLO, %d are widened by zeros for the context, "
        "%d are new",
        whole,
        len(own),
        len(taken) - whole,
        len(own) - len(taken),
    )


def _plain_key(key: str, model: Any) -> str:
    _, place, rest = key.split(".", 2)
    return f"model.{plain_places(model.yaml).index(int(place))}.{rest}"


def _wide_as(model: Any, source: Any) -> Any:
    """A copy of the plain ``source`` whose parts are where they are in ``model``, and as wide."""
    wide = copy.deepcopy(source).float()
    parts: list[nn.Module] = [nn.Identity() for _ in model.model]
    for place, part in zip(plain_places(model.yaml), wide.model):
        parts[place] = part
    wide.model = nn.Sequential(*parts)
    own, new = model.state_dict(), _new_inputs(model)
    for name, part in wide.named_modules():
        key = f"{name}.weight"
        if not isinstance(part, nn.Conv2d) or key not in own or part.groups > 1:
            continue
        grown = own[key].shape[1] - part.weight.shape[1]
        mask = new.get(int(name.split(".")[1]))
        if grown and mask is not None and int(mask.sum()) == grown:
            weight = part.weight.new_zeros(*part.weight.shape[:1], len(mask), *part.kernel_size)
            weight[:, ~mask] = part.weight.detach()
            part.weight = nn.Parameter(weight)
    return wide


@torch.no_grad()
def _new_inputs(model: Any) -> dict[int, Tensor]:
    """place of a row -> bool [C]: which channels of its input come from the context."""
    origin: dict[int, Tensor] = {}
    inputs: dict[int, Tensor] = {}

    def follow(part: Any, given: Any, output: Any) -> None:
        sources = part.f if isinstance(part.f, list) else [part.f]
        marks = [origin.get(part.i - 1 if s == -1 else s) for s in sources]
        kind = type(part).__name__
        if all(mark is not None for mark in marks):
            inputs[part.i] = torch.cat(marks)  # type: ignore[arg-type]
        if not isinstance(output, Tensor):
            return
        if kind == "Index":
            origin[part.i] = torch.ones(output.shape[1], dtype=torch.bool)
        elif kind in ("Concat", "Upsample"):
            origin[part.i] = inputs[part.i]
        else:
            origin[part.i] = torch.zeros(output.shape[1], dtype=torch.bool)

    handles = [part.register_forward_hook(follow) for part in model.model]
    was, device = model.training, next(model.parameters()).device
    model.eval()
    model(torch.zeros(1, 3, 64, 64, device=device))
    model.train(was)
    for handle in handles:
        handle.remove()
    return inputs
