"""``python -m src.plugins.yolo_fusion train | val | predict | export | compare``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from .settings import CompareYolo, ExportYolo, PredictYolo, TrainYolo, ValYolo


def _run(module: str, function: str) -> Callable[[Any], Any]:
    def run(options: Any) -> Any:
        from .environment import prepare

        prepare()
        return getattr(import_module(f".{module}", __package__), function)(options)

    return run


COMMANDS: dict[str, tuple[Any, Any]] = {
    "train": (TrainYolo, _run("train", "train_yolo")),
    "val": (ValYolo, _run("val", "validate_yolo")),
    "predict": (PredictYolo, _run("predict", "predict_yolo")),
    "export": (ExportYolo, _run("export", "export_yolo")),
    "compare": (CompareYolo, _run("compare", "compare_yolo")),
}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from ...core import cli

    cli.dispatch(COMMANDS, "python -m src.plugins.yolo_fusion", argv)


if __name__ == "__main__":
    main()
