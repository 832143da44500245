"""Where the figures of each epoch go beside history.csv: ``--logger``. Each library is optional."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Protocol

from ..core.errors import UserError
from ..core.registry import Registry
from .history import History


class Logger(Protocol):
    """Called with the History after each epoch, closed at the end."""

    def __call__(self, history: History) -> None:
        """Log the last row."""

    def close(self) -> None:
        """Finish."""


def metrics_of(history: History) -> dict[str, float]:
    """The last row, named ``train/...`` and ``valid/...``."""
    row = {name: value for name, value in history.last.items() if name != "epoch"}
    training = ("loss", "lr", "images", "seconds")
    return {
        f"{'train' if name.startswith(training) else 'valid'}/{name}": value
        for name, value in row.items()
    }


class TensorBoardLogger:
    """Scalars under ``tensorboard/`` of the run's folder."""

    def __init__(self, history: History, options: Any) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # A resumed run hides what a killed one wrote of the epochs that come again.
        folder, step = history.run_dir / "tensorboard", len(history.rows) + 1
        self.writer = SummaryWriter(str(folder), purge_step=step)

    def __call__(self, history: History) -> None:
        for name, value in metrics_of(history).items():
            self.writer.add_scalar(name, value, int(history.last["epoch"]))
        self.writer.flush()

    def close(self) -> None:
        """Finish the event file."""
        self.writer.close()


class WandbLogger:
    """A run of Weights & Biases (project: WANDB_PROJECT, or dino-stack; offline: WANDB_MODE)."""

    def __init__(self, history: History, options: Any) -> None:
        import wandb

        name = history.run_dir.name
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "dino-stack"),
            name=name,
            dir=str(history.run_dir),
            config=options.model_dump(mode="json"),
        )

    def __call__(self, history: History) -> None:
        self.run.log(metrics_of(history), step=int(history.last["epoch"]))

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()


class MlflowLogger:
    """A run of MLflow (where: MLFLOW_TRACKING_URI; experiment: MLFLOW_EXPERIMENT_NAME)."""

    def __init__(self, history: History, options: Any) -> None:
        import mlflow

        self.mlflow = mlflow
        mlflow.start_run(run_name=history.run_dir.name)
        given = {key: str(value)[:500] for key, value in options.model_dump(mode="json").items()}
        mlflow.log_params(given)

    def __call__(self, history: History) -> None:
        self.mlflow.log_metrics(metrics_of(history), step=int(history.last["epoch"]))

    def close(self) -> None:
        """End the run."""
        self.mlflow.end_run()


class NoLogger:
    """history.csv and the plots are all."""

    def __init__(self, history: History, options: Any) -> None:
        pass

    def __call__(self, history: History) -> None:
        pass

    def close(self) -> None:
        """Nothing to finish."""


LOGGERS: Registry[Callable[[History, Any], Logger]] = Registry(
    "logger",
    {
        "tensorboard": TensorBoardLogger,
        "wandb": WandbLogger,
        "mlflow": MlflowLogger,
        "none": NoLogger,
    },
)


def require_logger(name: str) -> None:
    """UserError when the library of ``--logger`` is not installed: before anything is built."""
    if name != "none" and find_spec(name) is None:
        raise UserError(f"--logger {name} needs: pip install {name}; or take --logger none")


def start_logger(name: str, history: History, options: Any) -> Logger:
    """The logger that ``--logger`` names. UserError when it refuses to start."""
    try:
        return LOGGERS[name](history, options)
    except Exception as error:  # each library has errors of its own: no login, no server
        raise UserError(f"--logger {name} did not start: {error}; or take --logger none") from error
