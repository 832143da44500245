"""Every command of the README and of docs/ is one that the program understands; some are run.

pages                                          here
README, the tasks, features, pictures,         parsed, and run on small data by
kept_features, evaluation                      tests/test_docs_run.py (slow)
README, demo                                   run by tests/test_bootstrap.py
pretraining                                    parsed: hours of training
yolo_fusion                                    parsed; tests/plugins runs the same commands
benchmarks, python_versions                    parsed, or that they are there
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys

import pytest

from src.classification.settings import InferClassifier, TrainClassifier
from src.core import cli
from src.core.config import CommandSettings
from src.data.check import any_options
from src.data.command_settings import FetchVoc
from src.depth.settings import InferDepthImage, TrainDepth
from src.detection.settings import (
    DetectionModelSummary,
    InferDetectionImage,
    InferDetectionVideo,
    TrainDetection,
)
from src.evaluate import EvaluateOptions
from src.evaluate_backbone import EvaluateBackbone
from src.export import ExportModelOptions
from src.features import settings as features
from src.multi import InferMulti
from src.oneshot.settings import PropagateOptions, SegmentOptions
from src.plugins.yolo_fusion import settings as yolo
from src.pretraining import settings as pretraining
from src.retrieval import settings as retrieval
from src.segmentation.settings import (
    InferSegmentationImage,
    InferSegmentationVideo,
    TrainSegmentation,
)
from src.visualise import settings as visualise
from tests.conftest import PROJECT

README = (PROJECT / "README.md").read_text()
SRC = PROJECT / "src"
PAGES = {page.name: page.read_text() for page in (PROJECT / "docs").glob("*.md")}
SETTINGS: dict[str, type[CommandSettings]] = {
    "train_detection.py": TrainDetection,
    "infer_det_image.py": InferDetectionImage,
    "infer_det_video.py": InferDetectionVideo,
    "infer_multi.py": InferMulti,
    "train_segmentation.py": TrainSegmentation,
    "infer_seg_image.py": InferSegmentationImage,
    "infer_seg_video.py": InferSegmentationVideo,
    "train_classifier.py": TrainClassifier,
    "infer_classifier.py": InferClassifier,
    "src.evaluate": EvaluateOptions,
    "src.export": ExportModelOptions,
    "src.data.check": any_options(),
    "src.data.fetch_voc": FetchVoc,
    "src.detection.model": DetectionModelSummary,
    "train_depth.py": TrainDepth,
    "infer_depth_image.py": InferDepthImage,
    "train_ssl.py": pretraining.TrainSsl,
    "src.pretraining export": pretraining.ExportOptions,
    "src.pretraining replay": pretraining.ReplayOptions,
    "src.pretraining pseudo": pretraining.PseudoOptions,
    "src.plugins.yolo_fusion train": yolo.TrainYolo,
    "src.plugins.yolo_fusion val": yolo.ValYolo,
    "src.plugins.yolo_fusion predict": yolo.PredictYolo,
    "src.plugins.yolo_fusion export": yolo.ExportYolo,
    "src.plugins.yolo_fusion compare": yolo.CompareYolo,
    "src.evaluate_backbone": EvaluateBackbone,
    "src.features extract": features.ExtractOptions,
    "src.features similarity": features.SimilarityOptions,
    "src.retrieval build": retrieval.BuildOptions,
    "src.retrieval search": retrieval.SearchOptions,
    "src.retrieval add": retrieval.AddOptions,
    "src.retrieval delete": retrieval.DeleteOptions,
    "src.retrieval duplicates": retrieval.DuplicatesOptions,
    "src.retrieval evaluate": retrieval.EvaluateOptions,
    "src.visualise attention": visualise.AttentionOptions,
    "src.visualise pca": visualise.PcaOptions,
    "src.visualise similarity": visualise.SimilarityPictureOptions,
    "src.oneshot": SegmentOptions,
    "src.oneshot propagate": PropagateOptions,
}


def commands(text: str) -> list[str]:
    """``python ...`` lines of code blocks, fenced or indented (continued lines joined), and of
    inline code; those that are cut short (...) are not."""
    text = re.sub(r"\\\n *", "", text)
    lines = re.findall(r"^(?: {4})?(python [^\n]+)$", text, re.MULTILINE)
    lines += re.findall(r"`(python [^`\n]+)`", text)
    whole = {re.sub(r" +# .*", "", line).strip() for line in lines}
    return sorted(one for one in whole if "..." not in one)


ALL = sorted({c for text in (README, *PAGES.values()) for c in commands(text)})


def own_settings(name: str) -> type[CommandSettings] | None:
    """The options that a benchmark says itself, if it has any beyond what argparse reads."""
    if not name.startswith("benchmarks."):
        return None
    found = vars(importlib.import_module(name)).values()
    kinds = [v for v in found if isinstance(v, type) and issubclass(v, CommandSettings)]
    own = [kind for kind in kinds if kind.__module__ == name]
    return own[0] if own else None


@pytest.mark.parametrize("command", ALL)
def test_command_is_understood(command):
    words = shlex.split(command)[1:]
    if words[0] in ("-", "-c"):
        pytest.skip("Python code, not a command of ours")
    if words[0] == "-m":
        words = words[1:]
        assert importlib.util.find_spec(words[0]) is not None
    else:
        assert (PROJECT / words[0]).is_file()
    name, *flags = words
    if flags and f"{name} {flags[0]}" in SETTINGS:
        name, flags = f"{name} {flags[0]}", flags[1:]
    settings = SETTINGS.get(name) or own_settings(name)
    if settings is None:
        pytest.skip(f"{name} is there; it reads its flags by itself, and they are not checked here")
    if "my.yaml" in flags:  # a placeholder: a real file stands in for it
        flags[flags.index("my.yaml")] = "detection_configs/demo.yaml"
    if flags or name != "src.evaluate":  # without a flag it is named, not called
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


def test_every_file_that_a_page_names_exists():
    """But those that extending.md makes (tests/test_extending.py follows it)."""
    folders = r"(?:src|tests|benchmarks|tools|data|core|engine|\w+_configs)"
    named = rf"(?<![\w/])({folders}/[\w/]+\.(?:py|yaml))"  # not within outputs/run/data/...
    pages = {"README.md": README, **PAGES}
    named_by = {(page, name) for page in pages for name in re.findall(named, pages[page])}
    there = {name for _, name in named_by if any((r / name).is_file() for r in (PROJECT, SRC))}
    assert {one for one in named_by if one[1] not in there and one[0] != "extending.md"} == set()
