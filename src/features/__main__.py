"""``python -m src.features extract | similarity``: frozen features as a command."""

from __future__ import annotations

import sys
from typing import Any

from ..core.cli import dispatch
from .settings import ExtractOptions, SimilarityOptions


def extract(options: ExtractOptions) -> int:
    """Write the features of many images."""
    from .extract import run_extract

    return run_extract(options)


def similarity(options: SimilarityOptions) -> int:
    """The cosine of two images."""
    from .similarity import run_similarity

    return run_similarity(options)


def with_images_flag(argv: list[str]) -> list[str]:
    """``similarity A B --flags`` as ``similarity --images A B --flags``: the parser has flags
    only."""
    words = 1
    while words < len(argv) and not argv[words].startswith("-"):
        words += 1
    if argv[:1] == ["similarity"] and words > 1:
        return ["similarity", "--images", *argv[1:]]
    return argv


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    commands: dict[str, Any] = {
        "extract": (ExtractOptions, extract),
        "similarity": (SimilarityOptions, similarity),
    }
    argv = with_images_flag(list(sys.argv[1:] if argv is None else argv))
    dispatch(commands, "python -m src.features", argv)


if __name__ == "__main__":
    main()
