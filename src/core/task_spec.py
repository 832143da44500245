"""What the commands above the tasks need to know of one: each task says it in its own folder.

``src/X/spec.py`` ends with ``SPEC = XSpec()``; ``src.tasks`` finds it. The file is light: what is
heavy is imported inside the methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from .config import CommandSettings


class Loaded(NamedTuple):
    """A trained model ready to answer: its Predictor, class names, and ``result(image, answer)``
    which makes the task's Result of an image (RGB uint8 [H, W, 3]) and the predictor's answer."""

    predictor: Any
    names: list[str]
    result: Callable[[Any, Any], Any]


class TaskSpec(ABC):
    """One task with a training command.

    name: as checkpoints and commands say it. The settings of its training command, of its
    inference on images, of the check of its data (whose dataset_class is its YAML), and what it
    adds to those of every evaluation.
    """

    name: ClassVar[str]
    train_options: ClassVar[type[CommandSettings]]
    predict_options: ClassVar[type[CommandSettings]]
    check_options: ClassVar[type[CommandSettings]]
    evaluate_options: ClassVar[type[CommandSettings]]

    def train(self, options: Any, hooks: Sequence[Callable[[Any], None]] = ()) -> Any:
        """Run a training (``train.train``); the History, which the hooks get after each epoch.
        UserError."""
        return self._own("train").train(options, hooks)

    def examine(self, options: Any) -> Any:
        """Read a whole data set (``check.examine``, check_options): data.common.report.Examined.
        UserError."""
        return self._own("check").examine(options)

    def evaluate(self, options: Any, out_dir: Path) -> dict[str, Any]:
        """Score a checkpoint (``evaluate.run``; EvaluationOptions and evaluate_options) and
        write results.json and pictures to ``out_dir``; what results.json holds. UserError."""
        return self._own("evaluate").run(options, out_dir)

    @abstractmethod
    def predictor(self, options: Any) -> Loaded:
        """The model that ``options`` (predict_options) name. UserError for what does not fit."""

    def _own(self, module: str) -> Any:
        """A module of the task's folder, imported when it is needed."""
        return import_module(f".{module}", type(self).__module__.rpartition(".")[0])
