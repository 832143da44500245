"""Train, evaluate, infer on drawn rooms, by the commands' own functions."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from src.core import cli
from src.core.errors import UserError
from src.core.structures import Size
from src.data.common.images import read_image
from src.data.drawn.depths import draw_depth_dataset
from src.depth.infer import infer_images
from src.depth.settings import InferDepthImage, TrainDepth
from src.depth.train import train

FOLDERS = {
    "TRAIN_IMAGES": "train/images",
    "TRAIN_DEPTHS": "train/depths",
    "VALID_IMAGES": "valid/images",
    "VALID_DEPTHS": "valid/depths",
}


def write_config(root: Path) -> Path:
    config = {"DATA_ROOT": str(root), **FOLDERS, "TRAIN": {"lr": 1e-3, "head_channels": 32}}
    (root / "rooms.yaml").write_text(yaml.safe_dump(config))
    return root / "rooms.yaml"


def arguments(config: Path, out: Path, *more: str) -> list[str]:
    return [
        *("--config", str(config), "--model-name", "dinov3_convnext_atto", "--weights", "none"),
        *("--fine-tune", "--head", "dpt", "--batch", "4", "--workers", "0", "--device", "cpu"),
        *("--out-dir", str(out), *more),
    ]


@pytest.fixture(scope="module")
def rooms(tmp_path_factory) -> Path:
    root = draw_depth_dataset(tmp_path_factory.mktemp("rooms"), 8, 3, size=Size(64, 48))
    return write_config(root)


@pytest.fixture(scope="module")
def run(rooms: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run")
    more = ["--imgsz", "64", "48", "--epochs", "3", "--augment", "flip", "--save-samples"]
    history = train(cli.parse(TrainDepth, arguments(rooms, out, *more)))
    assert history.rows[0]["loss"] > history.rows[-1]["loss"]
    return out


def test_a_run_leaves_its_files_and_the_best_by_rmse(run: Path) -> None:
    for name in ("best_model.pth", "last_model.pth", "loss.png", "scores.png", "samples.png"):
        assert (run / name).is_file(), name
    assert read_image(run / "valid_preds.jpg").shape[2] == 3


def test_images(run: Path, rooms: Path, tmp_path: Path) -> None:
    source = rooms.parent / "valid" / "images"
    flags = ["--model", str(run / "best_model.pth"), "--input", str(source), "--batch", "2"]
    flags += ["--out-dir", str(tmp_path), "--device", "cpu", "--flip", "--depth-scale", "500"]
    flags += ["--save-arrays"]
    assert infer_images(cli.parse(InferDepthImage, flags)) == 0
    content = json.loads((tmp_path / "depths.json").read_text())
    assert content["scale"] == 500 and len(content["images"]) == 3
    for entry in content["images"]:
        stored = np.array(Image.open(tmp_path / entry["depth"]))
        assert stored.dtype == np.uint16 and stored.shape == (48, 64)
        metres = np.load(tmp_path / entry["array"])
        assert metres.dtype == np.float32 and np.abs(metres - stored / 500).max() <= 1.1e-3
        assert stored.max() / 500 == pytest.approx(entry["most"], abs=2e-3)
        assert 0.001 <= entry["least"] <= entry["median"] <= entry["most"] <= 10
        assert read_image(tmp_path / entry["output"]).shape[1] == 128


def test_evaluate(run: Path, rooms: Path, tmp_path: Path) -> None:
    from src.evaluate import EvaluateOptions, evaluate

    options = {"model": run / "best_model.pth", "config": rooms, "workers": 0, "device": "cpu"}
    results = evaluate(EvaluateOptions(**options, out_dir=tmp_path))
    head, *rows = [line.split(",") for line in (run / "history.csv").read_text().splitlines()]
    column = head.index("RMSE")
    assert results["RMSE"] == pytest.approx(min(float(row[column]) for row in rows), 1e-4)
    assert (tmp_path / "worst.jpg").is_file()
    with open(tmp_path / "images.csv") as file:
        images = list(csv.DictReader(file))
    for name in ("RMSE", "AbsRel"):  # the means over images
        mean = sum(float(image[name]) for image in images) / len(images)
        assert mean == pytest.approx(results[name], rel=1e-4)
    assert len(images) == results["images"] and Path(images[0]["image"]).is_file()
    flipped = EvaluateOptions(**options, out_dir=tmp_path, flip=True, overwrite=True)
    assert evaluate(flipped)["RMSE"] != results["RMSE"]
    del options["config"]  # the run's own data
    alone = evaluate(EvaluateOptions(**options, out_dir=tmp_path / "alone", split="train"))
    assert alone["images"] == 8 and alone["source"][0].endswith("train/images")
    assert (tmp_path / "depths.jpg").is_file() and (tmp_path / "results.json").is_file()


def test_contradictions_are_named(run: Path, rooms: Path, tmp_path: Path) -> None:
    flags = ["--model", str(run / "best_model.pth"), "--input", str(rooms.parent / "valid/images")]
    flags += ["--out-dir", str(tmp_path)]
    with pytest.raises(UserError, match="--head says linear, the checkpoint has dpt"):
        infer_images(cli.parse(InferDepthImage, [*flags, "--head", "linear"]))
    with pytest.raises(UserError, match="--near 5 must be less than --far 2"):
        infer_images(cli.parse(InferDepthImage, [*flags, "--near", "5", "--far", "2"]))
    options = cli.parse(TrainDepth, arguments(rooms, tmp_path / "run"))
    with pytest.raises(UserError, match="image without depth"):
        train(options.model_copy(update={"train_depths": rooms.parent / "valid" / "depths"}))


@pytest.mark.slow
@pytest.mark.timeout(3600)  # 3 minutes of one core; a busy machine takes longer
def test_better_than_the_mean_depth_by_a_factor_of_two(tmp_path: Path) -> None:
    """From random weights, in minutes: perspective and haze are there to be learned."""
    config = write_config(draw_depth_dataset(tmp_path / "data", 240, 32, size=Size(96, 72)))
    more = ["--imgsz", "96", "72", "--epochs", "16", "--augment", "flip", "--schedule", "cosine"]
    more += ["--clip", "5", "--pictures", "0", "--eval-every", "16"]
    history = train(cli.parse(TrainDepth, arguments(config, tmp_path / "run", *more)))
    last = history.rows[-1]
    assert last["RMSE"] < 0.5 * last["mean_predictor_RMSE"]
