"""``python -m src.features extract | similarity``: frozen features as a command."""

from __future__ import annotations

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


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    commands: dict[str, Any] = {
        "extract": (ExtractOptions, extract),
        "similarity": (SimilarityOptions, similarity),
    }
    dispatch(commands, "python -m src.features", argv)


if __name__ == "__main__":
    main()
