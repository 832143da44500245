"""Every command of the README is one that the program understands."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys

import pytest

from src.classification.settings import InferClassifier, TrainClassifier
from src.core import cli
from src.data.check import any_options
from src.data.command_settings import FetchVoc
from src.detection.settings import (
    DetectionModelSummary,
    InferDetectionImage,
    InferDetectionVideo,
    TrainDetection,
)
from src.evaluate import EvaluateOptions
from src.segmentation.settings import (
    InferSegmentationImage,
    InferSegmentationVideo,
    TrainSegmentation,
)
from tests.conftest import PROJECT

README = (PROJECT / "README.md").read_text()
SETTINGS = {
    "train_detection.py": TrainDetection,
    "infer_det_image.py": InferDetectionImage,
    "infer_det_video.py": InferDetectionVideo,
    "train_segmentation.py": TrainSegmentation,
    "infer_seg_image.py": InferSegmentationImage,
    "infer_seg_video.py": InferSegmentationVideo,
    "train_classifier.py": TrainClassifier,
    "infer_classifier.py": InferClassifier,
    "src.evaluate": EvaluateOptions,
    "src.data.check": any_options(),
    "src.data.fetch_voc": FetchVoc,
    "src.detection.model": DetectionModelSummary,
}


def commands() -> list[str]:
    """``python ...`` lines of code blocks (continued lines joined) and of inline code."""
    text = README.replace("\\\n", " ")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(python [^`]+)`", text)
    return sorted({line for line in lines if line.startswith("python ")})


@pytest.mark.parametrize("command", commands())
def test_command_is_understood(command):
    words = shlex.split(command)[1:]
    if words[0] == "-m":
        words = words[1:]
        assert importlib.util.find_spec(words[0]) is not None
    else:
        assert (PROJECT / words[0]).is_file()
    name, *flags = words
    if name not in SETTINGS:
        pytest.skip(f"{name} has tests of its own")
    settings = SETTINGS[name]
    if "my.yaml" in flags:  # a placeholder: a real file stands in for it
        flags[flags.index("my.yaml")] = "detection_configs/demo.yaml"
    cli.parse(settings, flags, name)


def test_bootstrap_explains_itself():
    done = subprocess.run(
        [sys.executable, "bootstrap.py", "--help"], cwd=PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "demo" in done.stdout and "test" in done.stdout


def test_every_file_that_the_readme_links_exists():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert [t for t in targets if "://" not in t and not (PROJECT / t).exists()] == []
