"""``--compile``: torch.compile of what has fixed shapes, and plain PyTorch, with a word, where it
cannot.

Whole models are not compiled: NMS and lists of images break their graphs a dozen times. The
backbone, the neck and the head do not, and they take the time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..core.errors import UserError

log = logging.getLogger(__name__)
_SHAPES = 64  # of one function; torch gives up at 8, and batches come in ten canvases


class Compiled:
    """A function that is compiled when it is first called with a shape. Where the compiler fails,
    it says so once and goes on as the plain function."""

    def __init__(self, function: Callable[..., Any], name: str, mode: str | None = None) -> None:
        self.plain, self.name = function, name
        # Each shape for itself: there are few, and code for any size is slower.
        self.fast: Any = torch.compile(function, dynamic=False, mode=mode)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.fast is None:
            return self.plain(*args, **kwargs)
        try:
            return self.fast(*args, **kwargs)
        except _failures() as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            log.warning(
                "--compile: %s cannot be compiled here and goes on without (%s)", self.name, reason
            )
            self.fast = None
            return self.plain(*args, **kwargs)


def _failures() -> tuple[type[Exception], ...]:
    """What the compiler raises: it, not the model, has failed."""
    import torch._dynamo.exc
    import torch._inductor.exc

    inductor = getattr(torch._inductor.exc, "InductorError", None)  # from torch 2.7 on
    return (torch._dynamo.exc.TorchDynamoException, *([inductor] if inductor else []))


def _prepare() -> None:
    import torch._dynamo

    settings: Any = torch._dynamo.config
    known = "recompile_limit" if hasattr(settings, "recompile_limit") else "cache_size_limit"
    setattr(settings, known, max(getattr(settings, known), _SHAPES))
    log.info("--compile: the first batch of each shape waits for the compiler (up to a minute)")


class CompiledWhole:
    """``FeatureModel.whole``, compiled; on CUDA as CUDA graphs.

    Batches are filled up to a power of two images, so that there are few shapes.
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        _prepare()
        self.on_cuda = device.type == "cuda"
        mode = "reduce-overhead" if self.on_cuda else None
        self.run = Compiled(model.whole, "the model", mode)

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        count = len(batch)
        missing = (1 << (count - 1).bit_length()) - count
        if missing:
            batch = torch.cat([batch, batch.new_zeros(missing, *batch.shape[1:])])
        found: dict[str, Tensor] = self.run(batch)
        # A graph's outputs are overwritten by its next run.
        return {n: v[:count].clone() if self.on_cuda else v[:count] for n, v in found.items()}


def compile_inference(model: Any, device: torch.device) -> None:
    """Have a FeatureModel in eval mode answer by compiled code."""
    model.answered_by(CompiledWhole(model, device))


def compile_training(model: Any, strategy: str) -> None:
    """Compile the backbone and the parts that a FeatureModel names in ``compiled_parts``, in place;
    weights keep their names. UserError under FSDP."""
    if strategy == "fsdp":
        raise UserError("--compile does not go with --strategy fsdp: leave one of them out")
    _prepare()
    hub: Any = model.backbone.hub_model
    hub.get_intermediate_layers = Compiled(hub.get_intermediate_layers, "the backbone")
    for name in model.compiled_parts:
        part = getattr(model, name, None)
        if part is not None:
            part.forward = Compiled(part.forward, f"the {name}")
