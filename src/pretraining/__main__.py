"""``python -m src.pretraining export | replay | pseudo``: what comes after a pretraining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .settings import ExportOptions, PseudoOptions, ReplayOptions


def _export(options: ExportOptions) -> None:
    from .export import export

    export(options.model, options.out, options.part)


def _replay(options: ReplayOptions) -> None:
    from .replay import replay

    replay(options)


def _pseudo(options: PseudoOptions) -> None:
    from ..pseudo import pseudo

    pseudo(options)


COMMANDS: dict[str, tuple[Any, Any]] = {
    "export": (ExportOptions, _export),
    "replay": (ReplayOptions, _replay),
    "pseudo": (PseudoOptions, _pseudo),
}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from ..core import cli

    cli.dispatch(COMMANDS, "python -m src.pretraining", argv)


if __name__ == "__main__":
    main()
