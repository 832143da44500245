"""The hub speaks torch.hub's language, and checkpoints cross from a clone's names to ours."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from src.backbones.build import build_backbone
from src.backbones.catalog import CATALOG
from src.backbones.hub import BUNDLED
from tests.backbones.official import official_state
from tests.classification.drawn import draw_folders
from tests.conftest import PROJECT


@pytest.mark.parametrize("name", list(CATALOG))
def test_every_name_of_the_catalog_is_an_entry_point_of_its_shape(name):
    with torch.device("meta"):
        model = torch.hub.load(str(BUNDLED), name, source="local", pretrained=False)
    spec = CATALOG[name]
    assert model.embed_dim == spec.dims[-1]
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert abs(millions / spec.parameters - 1) < 0.02


def test_weights_argument_of_the_official_entry_points(tmp_path):
    first = torch.hub.load(str(BUNDLED), "dinov3_vitt16", source="local", pretrained=False)
    torch.save(first.state_dict(), tmp_path / "w.pth")
    second = torch.hub.load(
        str(BUNDLED), "dinov3_vitt16", source="local", weights=str(tmp_path / "w.pth")
    )
    x = torch.randn(1, 3, 32, 48)
    assert torch.equal(first.eval()(x), second.eval()(x))
    assert second.norm.normalized_shape[0] == 192


def test_a_checkpoint_in_metas_names_loads_into_the_bundled_backbone(shared):
    state = official_state(shared / "parity", "dinov3_vits16")
    backbone = build_backbone("dinov3_vits16", hub="bundled")
    theirs = {f"backbone.hub_model.{key}": value for key, value in state.items()}
    theirs["head.weight"] = torch.zeros(1)
    adapted = backbone.adapt_state_dict(theirs, "backbone.")
    own = {f"backbone.{key}" for key in backbone.state_dict()}
    assert set(adapted) == own | {"head.weight"}


def test_offline_the_default_weights_are_told_once_and_not_recommended(tmp_path):
    words = [sys.executable, "train_classifier.py", "--model-name", "dinov3_vits16"]
    draw_folders(tmp_path, train=2, valid=1)
    words += ["--train-dir", tmp_path / "train", "--valid-dir", tmp_path / "valid"]
    done = subprocess.run(
        [str(word) for word in [*words, "--out-dir", tmp_path / "run"]], cwd=PROJECT, text=True,
        capture_output=True, env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout.count("its public weights") == 1, done.stdout
    assert done.stderr.count("\n") == 1 and "--weights FILE" in done.stderr
    assert "--weights pretrained" not in done.stderr and "--weights none" in done.stderr
