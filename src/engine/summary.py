"""What a model is made of, in words."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core import cli
from ..core.config import CommandSettings

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)


def describe(options: Any, task: str, names: Sequence[str], model: Any) -> dict[str, Any]:
    """What a checkpoint must carry beside the weights, so that inference needs nothing else.

    options: those of the task's training command (head, model_name, feature_extractor,
    tune, imgsz, resize); names: the classes; model: with its ``backbone``.
    """
    source = getattr(model.backbone.hub_model, "source", None)
    return {
        "task": task,
        "head": options.head,
        "backbone": {
            "name": options.model_name,
            "feature_extractor": options.feature_extractor,
            "fine_tuned": getattr(options, "tune", "all") != "frozen",
            "mean": list(model.backbone.statistics.mean),
            "std": list(model.backbone.statistics.std),
            **({} if source is None else {"source": source}),
        },
        "image_size": list(options.imgsz),
        "resize": options.resize,
        "classes": list(names),
        "config": options.model_dump(mode="json", exclude={"resume", "overwrite"}),
    }


def say_data(records: Mapping[str, Sequence[Any]], names: Sequence[str]) -> None:
    """Log one line on the sizes of the splits and the classes."""
    log.info(
        "%d training images, %d validation images, %d classes: %s",
        len(records["train"]),
        len(records["valid"]),
        len(names),
        ", ".join(names[:8]) + (", ..." if len(names) > 8 else ""),
    )


def say_size(model: nn.Module) -> None:
    """Log one line on the number of parameters."""
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    log.info("%s parameters, %s of them trained", f"{total:,}", f"{trained:,}")


def summarise(model: nn.Module, width: int, height: int) -> str:
    """torchinfo's table of layers, parameters and multiply-adds for one image of this size."""
    import torch
    from torchinfo import summary

    with torch.inference_mode():
        table = summary(
            model.eval(),
            input_data=[torch.zeros(1, 3, height, width)],
            col_names=("input_size", "output_size", "num_params", "mult_adds"),
            row_settings=("var_names",),
            depth=4,
            verbose=0,
        )
    return str(table)


def run_summary(
    settings: type[CommandSettings],
    prog: str,
    build: Callable[..., nn.Module],
    argv: Sequence[str] | None = None,
) -> None:
    """The command ``python -m src.X.model``: print the summary of what the options build.

    settings: have imgsz and ``model_arguments()``; build: takes these.
    """

    def command() -> None:
        options: Any = cli.parse(settings, argv, prog)
        model: Any = build(**options.model_arguments())
        log.info("%s", summarise(model, *options.imgsz))
        log.info("images are normalised by %s", model.backbone.statistics)

    cli.run(command)
