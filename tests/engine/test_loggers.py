"""Figures of each epoch in the libraries that people use, each by its own reader."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from src.core.errors import UserError
from src.engine import loggers
from src.engine.history import History
from src.engine.settings import TrainingOptions


@pytest.fixture
def history(tmp_path) -> History:
    found = History(tmp_path, "mAP")
    found.add({"epoch": 1.0, "loss": 0.5, "lr": 1e-3, "mAP": 0.25}, 0.25)
    return found


def log(name: str, history: History) -> None:
    loggers.require_logger(name)
    logger = loggers.start_logger(name, history, TrainingOptions(out_dir=history.run_dir))
    logger(history)
    logger.close()


def test_tensorboard(history):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log("tensorboard", history)
    events = EventAccumulator(str(history.run_dir / "tensorboard")).Reload()
    assert events.Scalars("valid/mAP")[0].value == 0.25
    assert events.Scalars("train/loss")[0].step == 1


def test_mlflow(history, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{history.run_dir}/runs.db")
    if find_spec("sqlalchemy") is None:  # the skinny package has no database
        monkeypatch.setenv("MLFLOW_TRACKING_URI", (history.run_dir / "runs").as_uri())
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    log("mlflow", history)
    (run,) = mlflow.MlflowClient().search_runs(["0"])
    assert run.data.metrics["valid/mAP"] == 0.25 and run.data.params["epochs"] == "10"


def test_wandb(history, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    log("wandb", history)
    assert list((history.run_dir / "wandb").glob("offline-run-*/*.wandb"))


def test_none_writes_nothing(history):
    before = sorted(history.run_dir.iterdir())
    log("none", history)
    assert sorted(history.run_dir.iterdir()) == before


def test_a_library_that_is_not_there_is_told_before_the_work(monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install wandb"):
        loggers.require_logger("wandb")
