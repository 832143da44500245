"""The training command under torchrun, as it is typed: the same losses as of one process."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from src.data.drawn.boxes import draw_dataset
from tests.conftest import PROJECT
from tests.engine.test_processes import TORCHRUN

FLAGS = ["--config", "detection_configs/demo.yaml", "--workers", "0"]
FLAGS += ["--imgsz", "64", "--epochs", "2", "--batch", "4", "--head", "retinanet"]


def train(data: Path, folder: Path, *flags: str, prefix: tuple[str, ...] = ()) -> tuple[list, str]:
    """The history's rows, and what was said."""
    command = [sys.executable, *prefix, "train_detection.py", *FLAGS, *flags]
    done = subprocess.run(
        [*command, "--data-root", str(data), "--out-dir", str(folder)],
        cwd=PROJECT, capture_output=True, text=True, timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    with open(folder / "history.csv", newline="") as file:
        return list(csv.DictReader(file)), done.stdout


@pytest.mark.slow
def test_two_processes_are_as_one(tmp_path):
    data = draw_dataset(
        tmp_path / "data", train=10, valid=5
    )  # a last batch of 2; 3 + 2 to validate
    flags = ("--no-fine-tune", "--augment", "strong", "--save-samples")
    one, _ = train(data, tmp_path / "one", *flags)
    for strategy in ("ddp", "fsdp"):
        folder = tmp_path / strategy
        two, said = train(data, folder, *flags, "--strategy", strategy, prefix=tuple(TORCHRUN))
        assert said.count("10 training images, 5 validation images") == 1  # one process talks
        assert (folder / "samples.png").is_file()
        for name in ("loss", "mAP", "AR100"):
            found = [float(row[name]) for row in two]
            assert found == pytest.approx([float(row[name]) for row in one], rel=5e-3), name
