"""``python -m src.evaluate --model M``: the figures of a checkpoint, as JSON and PNG."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from .classification.settings import EvaluateClassification
from .core.config import CommandSettings
from .depth.settings import EvaluateDepth
from .detection.settings import EvaluateDetection
from .predict.settings import EvaluationOptions
from .segmentation.settings import EvaluateSegmentation

# What each task takes beside EvaluationOptions; src/TASK/evaluate.py does the work.
OWN: dict[str, type[CommandSettings]] = {
    "detection": EvaluateDetection,
    "segmentation": EvaluateSegmentation,
    "classification": EvaluateClassification,
    "depth": EvaluateDepth,
}


class EvaluateOptions(
    EvaluateClassification,
    EvaluateDepth,
    EvaluateSegmentation,
    EvaluateDetection,
    EvaluationOptions,
):
    """Evaluate a checkpoint of any task on a split of a data set: results.json and pictures."""


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from .core import cli

    cli.run(lambda: evaluate(cli.parse(EvaluateOptions, argv, "python -m src.evaluate")) and None)


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Evaluate by the checkpoint's task; returns what results.json holds."""
    from .core.registry import Registry
    from .engine.checkpoint import load_checkpoint
    from .predict.evaluation import claim_folder

    task = load_checkpoint(options.model)["task"]
    check_options(options, task, Registry("task of a checkpoint", OWN)[task])
    out_dir = claim_folder(options)
    return getattr(import_module(f".{task}.evaluate", __package__), f"evaluate_{task}")(
        options, out_dir
    )


def check_options(options: EvaluateOptions, task: str, own: type[CommandSettings]) -> None:
    """UserError for options that would do nothing: those of other tasks and of other splits."""
    from .core.errors import UserError

    faults = []
    known = {**EvaluationOptions.model_fields, **own.model_fields}
    for name in sorted(options.model_fields_set):
        flag, split = "--" + name.replace("_", "-"), name.split("_")[0]
        if name not in known:
            faults.append(f"{flag} is not for {task}, and {options.model} is a checkpoint of it")
        elif split in ("train", "valid", "test") and split != options.split:
            faults.append(f"{flag} is not looked at with --split {options.split}")
    if faults:
        raise UserError("; ".join(faults))


if __name__ == "__main__":
    main()
