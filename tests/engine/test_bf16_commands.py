"""Every task's training command in bf16, the default on CUDA: frozen, from kept features, tuned."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from src.backbones.batching import FeatureModel
from src.classification.settings import TrainClassifier
from src.classification.train import train as train_classifier
from src.core.cli import parse
from src.evaluate import EvaluateOptions, evaluate
from tests.classification.drawn import draw_folders
from tests.features.test_cached_tasks import SCORES, TASKS, draw, run

WAYS = {"frozen": [], "kept": ["--cache-features"], "tuned": ["--fine-tune"]}


def classify(root: Path, name: str, *flags: object) -> list[dict[str, float]]:
    words = ["--train-dir", root / "train", "--valid-dir", root / "valid", "--workers", 0]
    words += ["--model-name", "dinov3_convnext_atto", "--weights", "none", "--imgsz", 32, 48]
    words += ["--epochs", 2, "--batch", 8, "--device", "cpu", "--augment", "none", "--skip-check"]
    words += ["--out-dir", root / name, "--cache-dir", root / "kept", *flags]
    return train_classifier(parse(TrainClassifier, [str(word) for word in words])).rows


@pytest.fixture
def truths(monkeypatch) -> list[torch.Tensor]:
    """All float truth that reached a model in training."""
    found: list[torch.Tensor] = []
    plain = FeatureModel.targets_of

    def listening(self, inputs, targets):
        values = [value for target in targets for value in target.values()]
        found.extend(value for value in values if value.is_floating_point())
        return plain(self, inputs, targets)

    monkeypatch.setattr(FeatureModel, "targets_of", listening)
    return found


@pytest.mark.parametrize("task", [*TASKS, "classification"])
def test_training_in_bf16(task, tmp_path, truths):
    if task == "classification":
        root, train, score = draw_folders(tmp_path, train=2, valid=1), classify, "top1"
    else:
        root, score = draw(tmp_path), SCORES[task]

        def train(root, name, *flags):
            return run(root, task, name, *flags)

    rows = {
        way: train(root, way, "--precision", "bf16-mixed", *flags) for way, flags in WAYS.items()
    }
    for way in WAYS:
        assert all(math.isfinite(row["loss"]) for row in rows[way]), way
        assert score in rows[way][-1], way
    if task != "classification":  # its YAML is of another kind; the rule is the same
        words = ["--model", root / "frozen" / "best_model.pth", "--config", root / f"{task}.yaml"]
        words += ["--precision", "bf16", "--device", "cpu", "--batch", 3, "--workers", 0]
        words += ["--out-dir", root / "evaluation"]
        results = evaluate(parse(EvaluateOptions, [str(word) for word in words]))
        assert results[score] in [pytest.approx(row[score], rel=1e-5) for row in rows["frozen"]]
    for ours, theirs in zip(rows["kept"], rows["frozen"]):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.02)
    assert all(value.dtype == torch.float32 for value in truths)
    if task == "depth":  # their digits are there
        assert any(not torch.equal(value, value.bfloat16().float()) for value in truths)
