"""``python -m src.oneshot [segment | propagate]``; without a word: segment."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .settings import PropagateOptions, SegmentOptions


def _segment(options: SegmentOptions) -> int:
    from .segment import run_segment

    return run_segment(options)


def _propagate(options: PropagateOptions) -> int:
    from .propagate import run_propagate

    return run_propagate(options)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from ..core import cli

    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0].startswith("-") and words[0] not in ("-h", "--help"):
        words = ["segment", *words]
    commands = {
        "segment": (SegmentOptions, _segment),
        "propagate": (PropagateOptions, _propagate),
    }
    cli.dispatch(commands, "python -m src.oneshot", words)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
