"""``python -m src.data.check --config X``: everything about a data set, faults first.

Writes report.txt, report.json (every single fault) and a picture of samples with their boxes,
masks, classes or depths for each split. Which of these it is shows by the keys of the YAML. The
exit code is 1 when there are faults that would stop a training run.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from ..core import cli
from ..core.config import load_yaml
from ..tasks import tasks
from .common.settings import CheckData

log = logging.getLogger(__name__)


def main() -> None:
    """The command."""
    cli.run(_command)


def _command() -> int:
    prog = "python -m src.data.check"
    words = sys.argv[1:]
    given, _ = cli.build_parser(any_options(), prog).parse_known_args(words)
    name = kind_of(*_keys(given, words))
    return check(name, cli.parse(tasks()[name].check_options, words, prog))


def any_options() -> type[CheckData]:
    """The options of every task's check, for --help and to find out which one is meant."""
    bases = tuple(spec.check_options for _, spec in tasks().items())
    doc = "Read a whole data set of any task and report all its faults, with a picture of samples."
    return type("CheckAny", bases, {"__doc__": doc, "dataset_class": None, "__module__": __name__})


def kind_of(keys: Iterable[str], task: str | None = None) -> str:
    """The task of a data set with these keys: the one whose YAML knows the most of them (the
    first in doubt). task: the value of --task, which one of them has."""
    given = set(keys)

    def known(name: str) -> int:
        options = tasks()[name].check_options
        if task is not None and "task" not in options.model_fields:
            return -1
        dataset = options.dataset_kind({"task": task})
        return len(given & set(dataset.model_fields)) if dataset else 0

    return max(sorted(tasks(), key=lambda name: name != "detection"), key=known)


def _keys(given: Any, words: Sequence[str]) -> tuple[set[str], str | None]:
    """The keys of the YAML, and those that flags stand for (--train-dir: TRAIN_DIR); and --task, of
    the flags or the YAML's TRAIN."""
    task = getattr(given, "task", None)
    flags = {word.split("=")[0] for word in words if word.startswith("--")}
    keys = {flag[2:].replace("-", "_").upper() for flag in flags}
    if hasattr(given, "config") or not keys & {"TRAIN_DIR", "VALID_DIR"}:
        content = load_yaml(getattr(given, "config", CheckData.model_fields["config"].default))
        recipe = content.get("TRAIN")
        task = task or (recipe.get("task") if isinstance(recipe, dict) else None)
        keys |= set(content)
    return keys, task


def check(task: str, settings: Any) -> int:
    """Examine a data set of the task, log the report, write it with pictures; 1: it has errors."""
    from ..core.files import require_writable, write_json, write_text
    from ..core.paths import output_folder
    from .common.images import write_image

    folder = require_writable(output_folder(settings.out_dir))
    report, pictures = tasks()[task].examine(settings)
    for split, draw in pictures.items():
        sheet = draw()
        if sheet is not None:
            write_image(folder / f"samples_{split}.jpg", sheet)
    text = report.text()
    log.info("%s\n", text)
    write_text(folder / "report.txt", text + "\n")
    write_json(folder / "report.json", report.as_dict())
    log.info("report and pictures: %s", folder)
    if report.errors:
        log.info("%d faults would stop a training run", report.errors)
    return 1 if report.errors else 0


if __name__ == "__main__":
    main()
