"""Drawn objects are found by a model that began with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.core import cli
from src.data.drawn.instances import draw_instance_dataset
from src.segmentation.settings import TrainSegmentation
from src.segmentation.train import train
from tests.conftest import PROJECT


@pytest.mark.slow
def test_two_epochs_of_the_demo_find_objects(tmp_path: Path) -> None:
    """A part of demo_instance.yaml: mask AP50 was .30 after the first two epochs of eight."""
    drawn = draw_instance_dataset(tmp_path / "drawn", train=480, valid=48)
    config = PROJECT / "segmentation_configs" / "demo_instance.yaml"
    words = ["--config", config, "--data-root", drawn, "--out-dir", tmp_path / "run"]
    words += ["--epochs", 2, "--imgsz", 96, 96, "--workers", 0, "--device", "cpu"]
    history = train(cli.parse(TrainSegmentation, [str(word) for word in words]))
    assert history.rows[-1]["mAP50"] > 0.15
