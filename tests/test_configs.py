"""Every shipped YAML is valid, complete and free of absolute paths."""

from __future__ import annotations

import re

import pytest

from src.core import cli
from src.core.config import load_yaml
from src.detection.settings import TrainDetection
from tests.conftest import PROJECT

DETECTION = sorted((PROJECT / "detection_configs").glob("*.yaml"))
EVERY = sorted(PROJECT.glob("*_configs/*.yaml"))


@pytest.mark.parametrize("path", DETECTION, ids=lambda path: path.name)
def test_detection_configs_parse_with_their_recipes(path):
    options = cli.parse(TrainDetection, ["--config", str(path)])
    assert options.dataset.names[0] == "__background__"
    assert len(options.dataset.names) > 1


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.name)
def test_no_absolute_paths(path):
    assert load_yaml(path)
    assert not re.search(r"""^\s*\w+:\s*['"]?(/|[A-Z]:\\)""", path.read_text(), re.MULTILINE)
