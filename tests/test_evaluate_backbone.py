"""The table of a backbone: every part on small drawn data, published figures, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from src.backbone_parts import PARTS, commonest_pixels
from src.backbone_protocols import PROTOCOLS, differences
from src.backbone_table import markdown
from src.backbones.catalog import CATALOG
from src.backbones.published import PUBLISHED, SOURCES, published
from src.core import cli
from src.core.errors import UserError
from src.core.structures import Size
from src.data.common.images import write_image
from src.data.drawn.depths import draw_depth_dataset
from src.data.masks.reader import write_mask
from src.evaluate_backbone import EvaluateBackbone, combinations, evaluate_backbones, part_flags
from src.segmentation.settings import TrainSegmentation
from tests.conftest import PROJECT


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
    assert "| dinov3_convnext_atto | none | 100.0 | " in table
    floor = f"{measured['DEPTH']['mean_predictor_RMSE']:.3f}"
    assert f"| *no backbone* |  | 50.0 | {floor} | " in table
    assert "depth RMSE (m): always the mean depth" in table


def test_a_relative_folder_lies_below_outputs(parts, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = {"RETRIEVAL": parts["RETRIEVAL"]}
    assert evaluate_backbones(options(tmp_path, one, "--out-dir", "here")) == 0
    folder = tmp_path / "outputs" / "here"
    assert (folder / "results.md").is_file()
    assert (folder / "dinov3_convnext_atto" / "retrieval" / "scores.json").is_file()


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
    twice = ["--model-name", *["dinov3_convnext_atto"] * 2, "--weights", "none", "none"]
    with pytest.raises(UserError, match="twice with weights called none"):
        evaluate_backbones(options(tmp_path, parts, *twice))
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.parametrize("path", sorted((PROJECT / "evaluation_configs").glob("*.yaml")))
def test_the_shipped_yamls_are_understood_by_the_commands_they_name(path, monkeypatch) -> None:
    monkeypatch.chdir(PROJECT)
    given = cli.parse(EvaluateBackbone, ["--config", str(path)])
    row = {"model_name": "dinov3_vits16", "weights": "none"}
    for name, part in given.dataset.parts().items():
        for values in combinations(part or {}).values() if part is not None else ():
            ready = PARTS[name].read(part_flags(given, name, values, row, Path("out")))
            found = differences(name, ready.options, list(part.get("sweep", {})))
            if path.stem == "papers":  # runnable as published, but for what is always otherwise
                assert found == list(PROTOCOLS[name].always)
            elif name in PROTOCOLS:
                assert len(found) > len(PROTOCOLS[name].always)


def test_a_sweep_keeps_the_best_and_the_table_says_what_differs(parts, tmp_path) -> None:
    linear = {**parts["KNN"], "epochs": 1, "sweep": {"lr": [1e-9, 1e-2]}, "augment": "none"}
    del linear["knn_k"]
    assert evaluate_backbones(options(tmp_path, {"LINEAR": linear})) == 0
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    figures = content["measured"]["dinov3_convnext_atto"]["LINEAR"]
    assert set(figures["swept"]) == {"lr-1e-09", "lr-0.01"}
    assert figures["top1"] == max(figures["swept"].values())
    assert figures["swept"][figures["best_setting"]] == figures["top1"]
    table = (tmp_path / "out" / "results.md").read_text()
    assert "the best lr of 1e-09, 0.01" in table
    note = next(line for line in table.splitlines() if "otherwise than published" in line)
    for said in ("imgsz 32x32 (published: 224x224)", "resize stretch (published: crop)"):
        assert said in note
    assert "learning rate" not in note
    with pytest.raises(UserError, match="sweep is a mapping of options to lists"):
        options(tmp_path, {"LINEAR": {**linear, "sweep": {"lr": 1}}})


def test_published_figures_stand_in_the_table_with_their_sources(parts, tmp_path) -> None:
    names = ["dinov3_vits16", "dinov2_vits14", "dinov3_convnext_atto"]
    rows = {name: {"model_name": name, "weights": "none"} for name in names}
    rows |= {"again": {"model_name": "dinov3_vits16", "weights": "x.pth"}}
    table = markdown({"rows": rows, "data": {"KNN": {}}, "measured": {}, "failed": {}})
    lines = table.splitlines()
    assert lines[2] == "| dinov3_vits16 | none | - | - | 47 [1] | 0.403 [1] |"
    assert lines[3] == "| dinov2_vits14 | none | - | 79 [2] | 44.3 [3] | 0.449 [3] |"
    assert lines[4] == "| dinov3_convnext_atto | none | - | - | - | - |"
    assert lines[5] == "| dinov3_vits16 | x.pth | - | - | 47 [1] | 0.403 [1] |"
    assert "[1] DINOv3's model card" in table and "[3] DINOv2's paper" in table


def test_published_figures_are_of_backbones_that_exist() -> None:
    assert set(PUBLISHED) <= set(CATALOG)
    assert published("dinov3_convnext_atto").ade20k_miou is None
    figures = [f for row in PUBLISHED.values() for f in row.figures().values() if f is not None]
    assert {figure.source for figure in figures} == set(SOURCES)
    assert all("https://" in source for source in SOURCES.values())


def test_a_floor_for_segmentation(tmp_path) -> None:
    """Three quarters sky, one road; a third class is in no mask: 0.75 / 2."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    mask = np.zeros((8, 8), np.uint8)
    mask[:2] = 1
    write_image(tmp_path / "images" / "a.png", np.zeros((8, 8, 3), np.uint8))
    write_mask(tmp_path / "masks" / "a.png", mask)
    content = {f"{s}_{k}": k.lower() for s in ("TRAIN", "VALID") for k in ("IMAGES", "MASKS")}
    content |= {"DATA_ROOT": str(tmp_path), "ALL_CLASSES": ["sky", "road", "car"]}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    given = cli.parse(TrainSegmentation, ["--config", str(tmp_path / "c.yaml")])
    assert commonest_pixels(given) == {"commonest_class_mIoU": pytest.approx(0.375)}
