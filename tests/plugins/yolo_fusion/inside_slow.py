"""Several processes, as far as a CPU takes ultralytics: collected by test_yolo_fusion.py."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from src.data.drawn.boxes import draw_dataset
from src.plugins.yolo_fusion import environment
from tests.conftest import PROJECT

environment.prepare()

from ultralytics.utils.dist import generate_ddp_file  # noqa: E402

from src.core import cli  # noqa: E402
from src.plugins.yolo_fusion.data import data_yaml  # noqa: E402
from src.plugins.yolo_fusion.settings import TrainYolo  # noqa: E402
from src.plugins.yolo_fusion.train import write_graph  # noqa: E402
from src.plugins.yolo_fusion.trainer import FusionTrainer  # noqa: E402

KINDS = {"fused": ["--context", "multi"], "distilled": ["--context", "none", "--distill", "1"]}


@pytest.fixture(params=list(KINDS))
def run(request, tmp_path):
    """A run's folder before its training."""
    root = draw_dataset(tmp_path / "drawn", train=8, valid=4)
    config = PROJECT / "detection_configs/demo.yaml"
    words = ["--config", str(config), "--model-name", "dinov3_convnext_atto", "--weights", "none"]
    options = cli.parse(TrainYolo, [*words, *KINDS[request.param]])
    data_yaml(config, tmp_path / "data", root, ("train", "valid"))
    return tmp_path, write_graph(options, tmp_path)


def test_two_processes_train_one_network(run):
    folder, _ = run
    words = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29631"]
    words += ["-m", "tests.plugins.yolo_fusion.two_processes", str(folder)]
    done = subprocess.run([sys.executable, *words], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert (folder / "two/weights/best.pt").is_file()


def test_the_file_that_ultralytics_writes_for_each_process_trains(run):
    """It names the trainer's class; from a graph of ours ultralytics' own trainer would not know
    the row DinoContext."""
    folder, graph = run
    arguments = {"model": str(graph), "data": str(folder / "data/data.yaml"), "device": "cpu"}
    arguments |= {"epochs": 1, "imgsz": 64, "batch": 4, "plots": False}
    trainer = FusionTrainer(overrides={**arguments, "project": str(folder), "name": "one"})
    file = generate_ddp_file(trainer)
    environment_of_it = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, file], cwd=folder, capture_output=True, text=True, env=environment_of_it
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert (folder / "one/weights/best.pt").is_file()
