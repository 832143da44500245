"""Every shipped YAML is valid, complete and free of absolute paths."""

from __future__ import annotations

import re

import pytest

from src.backbones.catalog import CATALOG
from src.core import cli
from src.core.config import load_yaml
from src.detection.settings import TrainDetection
from src.pretraining.settings import TrainSsl
from src.tasks import tasks
from tests.conftest import PROJECT

DETECTION = sorted((PROJECT / "detection_configs").glob("*.yaml"))
PRETRAINING = sorted((PROJECT / "pretraining_configs").glob("*.yaml"))
EVERY = sorted(PROJECT.glob("*_configs/*.yaml"))


@pytest.mark.parametrize("path", DETECTION, ids=lambda path: path.name)
def test_detection_configs_parse_with_their_recipes(path):
    options = cli.parse(TrainDetection, ["--config", str(path)])
    assert options.dataset.names[0] == "__background__"
    assert len(options.dataset.names) > 1


@pytest.mark.parametrize("task", ["segmentation", "classification", "depth"])
def test_configs_of_other_tasks_parse_with_their_recipes(task):
    paths = sorted((PROJECT / f"{task}_configs").glob("*.yaml"))
    assert paths
    for path in paths:
        cli.parse(tasks()[task].train_options, ["--config", str(path)])


@pytest.mark.parametrize("name", ["voc", "coco"])
def test_detection_recipes_for_frozen_and_tuned_backbones(name):
    words = ["--config", str(PROJECT / "detection_configs" / f"{name}.yaml")]
    frozen = cli.parse(TrainDetection, words)
    tuned = cli.parse(TrainDetection, [*words, "--fine-tune", "--lr", "2e-4"])
    assert (frozen.lr, frozen.backbone_lr, frozen.layer_decay) == (1e-3, None, 1)
    assert (tuned.lr, tuned.backbone_lr, tuned.layer_decay) == (2e-4, 5e-5, 0.8)
    assert tuned.epochs > frozen.epochs
    assert tuned.ema == frozen.ema > 0.999


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.name)
def test_no_absolute_paths(path):
    assert load_yaml(path)
    assert not re.search(r"""^\s*\w+:\s*['"]?(/|[A-Z]:\\)""", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", PRETRAINING, ids=lambda path: path.name)
def test_pretraining_presets_parse(path):
    options = cli.parse(TrainSsl, ["--config", str(path), "--images", "x"])
    assert options.global_size % (CATALOG[options.model_name].patch or 32) == 0
    assert options.warmup_epochs < options.epochs
