"""``python -m src.visualise attention | pca | similarity``: what a backbone sees."""

from __future__ import annotations

from collections.abc import Sequence

from .settings import AttentionOptions, PcaOptions, SimilarityPictureOptions


def _attention(options: AttentionOptions) -> int:
    from .attention import run_attention

    return run_attention(options)


def _pca(options: PcaOptions) -> int:
    from .pca import run_pca

    return run_pca(options)


def _similarity(options: SimilarityPictureOptions) -> int:
    from .similarity import run_similarity_pictures

    return run_similarity_pictures(options)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from ..core import cli

    commands = {
        "attention": (AttentionOptions, _attention),
        "pca": (PcaOptions, _pca),
        "similarity": (SimilarityPictureOptions, _similarity),
    }
    cli.dispatch(commands, "python -m src.visualise", argv)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
