"""``python -m src.evaluate --model M``: the figures of a checkpoint, as JSON and PNG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .core.config import CommandSettings
from .predict.settings import EvaluationOptions
from .tasks import tasks

# EvaluationOptions with what each task adds to them.
EvaluateOptions: Any = type(
    "EvaluateOptions",
    (*(spec.evaluate_options for _, spec in tasks().items()), EvaluationOptions),
    {
        "__doc__": "Evaluate a checkpoint of any task on a split of a data set: results.json and "
        "pictures.",
        "__module__": __name__,
    },
)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from .core import cli

    cli.run(lambda: evaluate(cli.parse(EvaluateOptions, argv, "python -m src.evaluate")) and None)


def evaluate(options: Any) -> dict[str, Any]:
    """Evaluate by the checkpoint's task; returns what results.json holds."""
    from .predict.evaluation import claim_folder
    from .predict.restore import read_model

    task = read_model(options.model, weights=False)["task"]
    own = tasks()[task].evaluate_options
    refuse_foreign_options(options, task, own)
    return tasks()[task].evaluate(as_of(options, own), claim_folder(options))


def as_of(options: Any, own: type[CommandSettings]) -> Any:
    """What was given, with the defaults of the checkpoint's task: tasks may have an option of one
    name (--overlap: of windows, of tiles), each with a default and a meaning of its own."""
    kind: Any = type("EvaluateTask", (own, EvaluationOptions), {"__module__": __name__})
    return kind(**{name: getattr(options, name) for name in options.model_fields_set})


def refuse_foreign_options(options: Any, task: str, own: type[CommandSettings]) -> None:
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
