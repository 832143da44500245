from __future__ import annotations

from inspect import signature

import pytest
import torch

from src.core.cli import parse
from src.detection.model import build_detector, dinov3_detection
from src.detection.settings import HEADS, TrainDetection
from src.detection.train import DetectionTask
from tests.conftest import PROJECT

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
