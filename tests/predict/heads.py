"""Small checkpoints of all four tasks, trained separately on one frozen backbone."""

from __future__ import annotations

from pathlib import Path

import torch

from src.backbones.build import build_backbone
from src.classification.settings import TrainClassifier
from src.classification.train import train as train_classifier
from src.core.cli import parse
from tests.classification.drawn import draw_folders
from tests.features.test_cached_tasks import draw, run

TASKS = ("detection", "segmentation", "depth", "classification")


def write_backbone(path: Path, name: str = "dinov3_vitt16", seed: int = 0) -> Path:
    """Random weights in Meta's layout, in a file."""
    torch.manual_seed(seed)
    state = build_backbone(name, weights="none", hub="bundled").hub_model.official_state()
    torch.save(state, path)
    return path


def train_heads(root: Path, weights: Path, *flags: object) -> dict[str, Path]:
    """The best_model.pth of each task, all at 64 x 64 with the aspect ratio kept."""
    draw(root)
    for task in TASKS[:3]:
        run(root, task, task, "--weights", weights, *flags)
    pictures = draw_folders(root / "pictures", 2, 1)
    words = ["--train-dir", pictures / "train", "--valid-dir", pictures / "valid", "--epochs", 1]
    words += ["--model-name", "dinov3_vitt16", "--weights", weights, "--imgsz", 64, "--batch", 4]
    words += ["--workers", 0, "--device", "cpu", "--resize", "fit", "--skip-check"]
    words += ["--out-dir", root / "classification", *flags]
    train_classifier(parse(TrainClassifier, [str(word) for word in words]))
    return {task: root / task / "best_model.pth" for task in TASKS}
