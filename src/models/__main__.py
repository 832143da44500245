"""``dinostack models``: what ``--model hub:NAME`` knows, whose it is, what was reported of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..core import cli
from .opening import MODELS, published_content
from .settings import ListModels

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    cli.run(lambda: run(cli.parse(ListModels, argv, "python -m src.models")))


def run(options: ListModels) -> None:
    """Fetch the models named, or print the table. UserError for an unknown name."""
    for name in options.fetch:
        published_content(name)
        log.info("hub:%s is ready", name)
    if not options.fetch:
        print(table(options.task))


def table(task: str | None = None) -> str:
    """The models (of a task), a line each; the figures are their authors'."""
    rows = [
        (
            f"hub:{name}",
            row.task,
            f"{row.megabytes:,.0f} MB",
            row.licence,
            row.figure,
            "here" if all(file.path.is_file() for file in row.files) else "",
        )
        for name, row in MODELS.items()
        if task in (None, row.task)
    ]
    titles = ("model", "task", "size", "licence", "its authors report", "fetched")
    widths = [max(map(len, column)) for column in zip(titles, *rows)]
    lines = ("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths)) for row in (titles, *rows))
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    main()
