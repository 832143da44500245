"""The table of a backbone: every part on small drawn data, published figures, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from src.backbones.catalog import CATALOG
from src.backbones.published import PUBLISHED, published
from src.core import cli
from src.core.errors import UserError
from src.core.structures import Size
from src.data.images import write_image
from src.data.synthetic_depth import draw_depth_dataset
from src.evaluate_backbone import EvaluateBackbone, evaluate_backbones


def draw_colours(root: Path, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for number in range(count):
        for name, colour in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
            image = np.clip(rng.normal(colour, 25, (32, 32, 3)), 0, 255).astype(np.uint8)
            write_image(root / name / f"{number}.png", image)


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict:
    root = tmp_path_factory.mktemp("data")
    draw_colours(root / "train", 4, 0)
    draw_colours(root / "valid", 2, 1)
    draw_depth_dataset(root / "rooms", 2, 1, size=Size(32, 32))
    depth = {
        **{
            f"{s}_{k}".upper(): f"{s}/{k}" for s in ("train", "valid") for k in ("images", "depths")
        },
        "DATA_ROOT": str(root / "rooms"),
        "TRAIN": {"head": "dpt", "fine_tune": True},
    }
    (root / "rooms.yaml").write_text(yaml.safe_dump(depth))
    folders = {"train_dir": str(root / "train"), "valid_dir": str(root / "valid"), "workers": 0}
    small = {"imgsz": [32, 32], "batch": 2}
    return {
        "KNN": {**folders, **small, "knn_k": [1, 3]},
        "DEPTH": {"config": str(root / "rooms.yaml"), **small, "epochs": 1, "workers": 0},
        "RETRIEVAL": {"input": str(root / "valid"), "gallery": str(root / "train"), **small},
    }


def options(tmp_path: Path, parts: dict, *more: str) -> EvaluateBackbone:
    (tmp_path / "parts.yaml").write_text(yaml.safe_dump(parts))
    flags = ["--config", str(tmp_path / "parts.yaml"), "--weights", "none", "--device", "cpu"]
    flags += ["--model-name", "dinov3_convnext_atto", "--out-dir", str(tmp_path / "out"), *more]
    return cli.parse(EvaluateBackbone, flags)


def test_a_table_of_three_parts(parts, tmp_path) -> None:
    assert evaluate_backbones(options(tmp_path, parts)) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    measured = results["measured"]["dinov3_convnext_atto"]
    assert measured["KNN"]["top1"] == 1 and measured["RETRIEVAL"]["mAP"] > 0.9
    assert measured["DEPTH"]["RMSE"] > 0 and measured["DEPTH"]["mean_predictor_RMSE"] > 0
    run = yaml.safe_load((tmp_path / "out/dinov3_convnext_atto/depth/config.yaml").read_text())
    assert run["head"] == "linear" and run["fine_tune"] is False  # whatever TRAIN says
    table = (tmp_path / "out" / "results.md").read_text()
    assert "| dinov3_convnext_atto | none | 1.000 | " in table
    assert "always the mean depth" in table and "arxiv.org/abs/2508.10104" in table


def test_a_part_that_fails_is_told_and_the_rest_goes_on(parts, tmp_path) -> None:
    broken = {"KNN": {**parts["KNN"], "valid_dir": "nowhere"}, "RETRIEVAL": parts["RETRIEVAL"]}
    assert evaluate_backbones(options(tmp_path, broken)) == 1
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "nowhere" in results["failed"]["dinov3_convnext_atto"]["KNN"]
    assert "RETRIEVAL" in results["measured"]["dinov3_convnext_atto"]
    assert "failed" in (tmp_path / "out" / "results.md").read_text()


def test_bad_input_stops_before_anything_runs(parts, tmp_path) -> None:
    with pytest.raises(UserError, match=r"KNN: unknown argument: --knn-kk \(did you mean"):
        evaluate_backbones(options(tmp_path, {"KNN": {**parts["KNN"], "knn_kk": 3}}))
    with pytest.raises(UserError, match="did you mean 'DEPTH'"):
        options(tmp_path, {"DEPHT": {}})
    with pytest.raises(UserError, match="names no part"):
        options(tmp_path, {})
    with pytest.raises(UserError, match="weights cannot be set"):
        options(tmp_path, {"KNN": {"weights": "x"}})
    with pytest.raises(UserError, match="2 weights for 1 backbones"):
        options(tmp_path, parts, "--weights", "none", "none")
    assert not (tmp_path / "out" / "results.json").exists()


def test_published_figures_are_of_backbones_that_exist() -> None:
    assert set(PUBLISHED) <= set(CATALOG)
    assert published("dinov3_vitb16").nyu_rmse == 0.373
    assert published("dinov3_convnext_atto").ade20k_miou is None
