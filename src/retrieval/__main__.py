"""``python -m src.retrieval build | search | add | delete | duplicates | evaluate``."""

from __future__ import annotations

from typing import Any

from ..core.cli import dispatch
from .settings import (
    AddOptions,
    BuildOptions,
    DeleteOptions,
    DuplicatesOptions,
    EvaluateOptions,
    SearchOptions,
)


def build(options: BuildOptions) -> int:
    """Make an index."""
    from .build import run_build

    return run_build(options)


def search(options: SearchOptions) -> int:
    """Search by image."""
    from .search import run_search

    return run_search(options)


def add(options: AddOptions) -> int:
    """Add images."""
    from .build import run_add

    return run_add(options)


def delete(options: DeleteOptions) -> int:
    """Delete images."""
    from .build import run_delete

    return run_delete(options)


def duplicates(options: DuplicatesOptions) -> int:
    """Near-duplicates."""
    from .duplicates import run_duplicates

    return run_duplicates(options)


def evaluate(options: EvaluateOptions) -> int:
    """recall@k and mAP."""
    from .evaluate import run_evaluate

    return run_evaluate(options)


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    commands: dict[str, Any] = {
        "build": (BuildOptions, build),
        "search": (SearchOptions, search),
        "add": (AddOptions, add),
        "delete": (DeleteOptions, delete),
        "duplicates": (DuplicatesOptions, duplicates),
        "evaluate": (EvaluateOptions, evaluate),
    }
    dispatch(commands, "python -m src.retrieval", argv)


if __name__ == "__main__":
    main()
