from __future__ import annotations

from inspect import signature

import pytest
import torch
import yaml

from src.core.cli import parse
from src.data.drawn.boxes import NAMES, draw_dataset
from src.detection.model import build_detector, dinov3_detection
from src.detection.settings import HEADS, TrainDetection
from src.detection.train import DetectionTask, suited_batch, suited_warmup
from tests.conftest import PROJECT

KINDS = (("IMG", "images"), ("ANNOT", "labels"))
VOC = PROJECT / "detection_configs" / "voc_devkit.yaml"


def test_the_default_head_is_the_best_one_by_all_ways_in():
    """The tutorial's own function keeps the tutorial's."""
    named = {p.name: p.default for p in signature(build_detector).parameters.values()}
    theirs = {p.name: p.default for p in signature(dinov3_detection).parameters.values()}
    assert parse(TrainDetection, []).head == named["head"] == HEADS[0] == "atss"
    assert theirs["head"] == "ssd"


def test_the_tutorials_milestones_still_step():
    assert parse(TrainDetection, []).schedule == "cosine"
    assert parse(TrainDetection, ["--scheduler-epochs", "3"]).schedule == "multistep"
    both = ["--scheduler-epochs", "3", "--schedule", "flat-cosine"]
    assert parse(TrainDetection, both).schedule == "flat-cosine"


@pytest.mark.parametrize(
    ("trained", "flags", "expected"),
    [
        (True, [], 1e-4),
        (False, [], None),
        (True, ["--lr", "2e-4"], None),
        (True, ["--backbone-lr", "3e-5"], 3e-5),
    ],
)
def test_a_trained_backbone_is_tuned_with_care(tmp_path, trained, flags, expected):
    from src.backbones.build import build_backbone

    torch.manual_seed(0)
    backbone = build_backbone("dinov3_vitt16").hub_model
    for name, parameter in backbone.named_parameters():
        if trained and "norm" in name:
            torch.nn.init.normal_(parameter)
    torch.save(backbone.state_dict(), tmp_path / "weights.pth")
    fixed = ["--config", VOC, "--model-name", "dinov3_vitt16", "--fine-tune"]
    fixed += ["--weights", tmp_path / "weights.pth", "--pyramid-channels", 32]
    words = [str(word) for word in [*fixed, *flags]]
    task = DetectionTask(parse(TrainDetection, words))
    task.tune(task.build_model())
    assert task.options.backbone_lr == expected


@pytest.mark.parametrize(
    ("batch", "images", "world", "expected"),
    [(16, 160, 1, 4), (16, 400, 1, 10), (16, 5000, 1, 16), (4, 5000, 1, 4), (16, 160, 8, 8)],
)
def test_small_sets_take_small_batches(batch, images, world, expected):
    assert suited_batch(batch, images, world) == expected


@pytest.mark.parametrize(
    ("epochs", "steps", "expected"), [(12, 20, 3), (20, 1034, 0.5), (20, 500, 1), (100, 40, 12.5)]
)
def test_warm_up_goes_by_steps(epochs, steps, expected):
    assert suited_warmup(0.5, epochs, steps) == expected


@pytest.mark.parametrize(
    ("flags", "batch", "lr"),
    [
        ([], 4, 5e-4),
        (["--batch", "16"], 16, 1e-3),
        (["--batch", "4", "--accumulate", "4"], 4, 1e-3),
        (["--batch", "2", "--lr", "1e-3"], 2, 1e-3),
    ],
)
def test_the_default_rate_goes_by_the_images_of_a_step(tmp_path, flags, batch, lr):
    draw_dataset(tmp_path, train=5, valid=2)
    folders = {f"{s.upper()}_{k}": f"{s}/{v}" for s in ("train", "valid") for k, v in KINDS}
    dataset = {"DATA_ROOT": str(tmp_path), "CLASSES": NAMES, **folders}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(dataset))
    fixed = ["--config", tmp_path / "data.yaml", "--device", "cpu"]
    task = DetectionTask(parse(TrainDetection, [str(word) for word in [*fixed, *flags]]))
    task.read()
    assert (task.options.batch, task.options.lr) == (batch, lr)
    assert ("lr" in task.options.model_fields_set) == ("--lr" in flags)  # as ``tune`` asks
    assert task.options.warmup_epochs == task.options.epochs / 4
