"""Train, evaluate, infer on a small drawn data set, by the commands' own functions."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from src.core import cli
from src.core.errors import UserError
from src.data.common.images import read_image, write_image
from src.data.masks.reader import write_mask
from src.segmentation.infer import infer_images, infer_video
from src.segmentation.settings import (
    InferSegmentationImage,
    InferSegmentationVideo,
    TrainSegmentation,
)
from src.segmentation.train import train
from tests.predict.helpers import make_video, moving

COLOURS = [[0, 0, 0], [220, 40, 40], [40, 60, 220]]


def draw(folder: Path, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = np.zeros((256, 3), np.uint8)
    table[:3] = COLOURS
    for number in range(count):
        mask = np.zeros((64, 96), np.uint8)
        cv2.circle(mask, (int(rng.integers(20, 45)), int(rng.integers(20, 44))), 15, 1, -1)
        cv2.rectangle(mask, (60, 8), (int(rng.integers(75, 90)), 50), 2, -1)
        noise = rng.integers(0, 40, (64, 96, 3)).astype(np.uint8)
        write_image(folder / "images" / f"{number}.png", cv2.add(table[mask], noise))
        write_mask(folder / "masks" / f"{number}.png", mask)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    draw(root / "train", 12, 0)
    draw(root / "valid", 3, 1)
    config = {
        "DATA_ROOT": str(root),
        "ALL_CLASSES": ["ground", "circle", "box"],
        "LABEL_COLORS_LIST": COLOURS,
        "VIS_LABEL_MAP": COLOURS,
        "TRAIN": {"lr": 2e-3, "head": "conv"},
    }
    (root / "shapes.yaml").write_text(yaml.safe_dump(config))
    return root


def arguments(data: Path, out: Path, *more: str) -> list[str]:
    return [
        *("--config", str(data / "shapes.yaml"), "--model-name", "dinov3_convnext_atto"),
        *("--train-images", str(data / "train/images"), "--train-masks", str(data / "train/masks")),
        *("--valid-images", str(data / "valid/images"), "--valid-masks", str(data / "valid/masks")),
        *("--weights", "none", "--fine-tune", "--imgsz", "96", "64", "--head-channels", "32"),
        *("--batch", "4", "--workers", "0", "--augment", "flip", "--out-dir", str(out), *more),
    ]


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run")
    options = cli.parse(TrainSegmentation, arguments(data, out, "--epochs", "6", "--save-samples"))
    history = train(options)
    assert history.rows[-1]["mIoU"] > 0.6 and history.rows[0]["loss"] > history.rows[-1]["loss"]
    return out


def test_a_run_leaves_its_pictures(run: Path) -> None:
    for name in ("best_model.pth", "last_model.pth", "loss.png", "iou.png", "samples.png"):
        assert (run / name).is_file(), name
    assert len(list((run / "valid_preds").iterdir())) == 6


@pytest.mark.parametrize("more", [[], ["--slide", "--flip", "--scales", "1", "1.25"]])
def test_images(run: Path, data: Path, tmp_path: Path, more) -> None:
    source = data / "valid" / "images"
    flags = ["--model", str(run / "best_model.pth"), "--input", str(source), "--batch", "2"]
    flags += ["--out-dir", str(tmp_path), "--device", "cpu", *more]
    assert infer_images(cli.parse(InferSegmentationImage, flags)) == 0
    content = json.loads((tmp_path / "segments.json").read_text())
    assert content["classes"] == ["ground", "circle", "box"] and len(content["images"]) == 3
    for entry in content["images"]:
        with Image.open(tmp_path / entry["mask"]) as file:
            assert file.mode == "L"
            mask = np.array(file)
        truth = np.array(Image.open(data / "valid/masks" / Path(entry["file_name"]).name))
        assert mask.shape == truth.shape and (mask == truth).mean() > 0.85
        assert sum(entry["shares"].values()) == pytest.approx(1, abs=1e-4)
        assert entry["shares"]["ground"] == pytest.approx((mask == 0).mean(), abs=1e-5)
        assert read_image(tmp_path / entry["output"]).shape == (64, 96, 3)


@pytest.mark.parametrize("what", ["classes", "probabilities"])
def test_arrays_of_pictures_and_of_frames(run: Path, data: Path, tmp_path: Path, what) -> None:
    flags = ["--model", str(run / "best_model.pth"), "--device", "cpu", "--save-arrays", what]
    flags += ["--out-dir", str(tmp_path), "--input"]
    options = cli.parse(InferSegmentationImage, [*flags, str(data / "valid" / "images")])
    assert infer_images(options) == 0
    (tmp_path / "source").mkdir()
    video = make_video(tmp_path / "source" / "clip.mp4", moving(3))
    assert infer_video(cli.parse(InferSegmentationVideo, [*flags, str(video)])) == 0
    for name, count in (("segments.json", 3), ("clip_segments.json", 3)):
        entries = json.loads((tmp_path / name).read_text())["images"]
        assert len({entry["array"] for entry in entries}) == count
        for entry in entries:
            array = np.load(tmp_path / entry["array"])
            if what == "probabilities":
                array = array["array"].astype(np.float32)
                np.testing.assert_allclose(array.sum(0), 1, atol=0.01)
                assert array.shape == (3, entry["height"], entry["width"])
                array = array.argmax(0)
            if "mask" in entry:
                mask = np.array(Image.open(tmp_path / entry["mask"]))
                assert (mask == array).mean() > 0.999
            assert array.shape == (entry["height"], entry["width"])
            assert (array == 0).mean() == pytest.approx(entry["shares"].get("ground", 0), abs=2e-3)
    if what == "classes":
        assert (tmp_path / "arrays" / "clip_000002.npy").is_file() and array.dtype == np.uint8


def test_a_contradiction_is_named(run: Path, data: Path, tmp_path: Path) -> None:
    flags = ["--model", str(run / "best_model.pth"), "--input", str(data), "--head", "dpt"]
    with pytest.raises(UserError, match="--head says dpt, the checkpoint has conv"):
        infer_images(cli.parse(InferSegmentationImage, [*flags, "--out-dir", str(tmp_path)]))


def test_a_checkpoint_of_a_size_beyond_sense_is_told(run: Path, data: Path, tmp_path: Path) -> None:
    content = torch.load(run / "best_model.pth", weights_only=True)
    torch.save({**content, "image_size": [10**9, 10**9]}, tmp_path / "huge.pth")
    flags = ["--model", str(tmp_path / "huge.pth"), "--input", str(data)]
    with pytest.raises(UserError, match=r"huge.pth is damaged: its image_size is \[1000000000"):
        infer_images(cli.parse(InferSegmentationImage, flags))


def test_evaluate(run: Path, data: Path, tmp_path: Path) -> None:
    from src.evaluate import EvaluateOptions, evaluate

    content = yaml.safe_load((data / "shapes.yaml").read_text())
    content |= {"VALID_IMAGES": "valid/images", "VALID_MASKS": "valid/masks"}
    config = tmp_path / "with_folders.yaml"
    config.write_text(yaml.safe_dump(content))
    results = evaluate(
        EvaluateOptions(
            model=run / "best_model.pth", config=config, workers=0, device="cpu",
            out_dir=tmp_path / "out",
        )
    )  # fmt: skip
    best = (run / "history.csv").read_text().splitlines()
    column = best[0].split(",").index("mIoU")
    assert results["mIoU"] == pytest.approx(
        max(float(r.split(",")[column]) for r in best[1:]), 1e-4
    )
    assert 0 < results["boundary_F"] <= 1
    assert (tmp_path / "out" / "confusion_matrix.png").is_file()
    for name in content["ALL_CLASSES"]:
        last = float(best[-1].split(",")[best[0].split(",").index(f"IoU/{name}")])
        assert 0 <= last <= 1
    assert (tmp_path / "out" / "worst.jpg").is_file()
    with open(tmp_path / "out" / "images.csv") as file:
        rows = list(csv.DictReader(file))
    names = [Path(row["image"]).name for row in rows]
    assert names == ["0.png", "1.png", "2.png"] and all(0 < float(r["mIoU"]) <= 1 for r in rows)
    mean = sum(float(row["pixel_accuracy"]) for row in rows) / 3  # all are of one size
    assert mean == pytest.approx(results["pixel_accuracy"], abs=1e-5)


def evaluated(run: Path, out: Path, *flags: object) -> dict:
    from src.evaluate import EvaluateOptions, evaluate

    words = ["--model", run / "best_model.pth", "--workers", 0, "--device", "cpu", *flags]
    words += ["--out-dir", out, "--overwrite"]
    return evaluate(cli.parse(EvaluateOptions, [str(word) for word in words]))


def test_evaluate_finds_the_data_by_itself_by_the_runs_config_or_by_flags(run, data, tmp_path):
    alone = evaluated(run, tmp_path)
    assert alone["source"] == [str(data / "valid" / "images"), str(data / "valid" / "masks")]
    assert evaluated(run, tmp_path, "-c", run / "config.yaml")["mIoU"] == alone["mIoU"]
    folders = ["--valid-images", data / "train/images", "--valid-masks", data / "train/masks"]
    other = evaluated(run, tmp_path, "-c", data / "shapes.yaml", *folders)
    assert other["images"] == 12 and str(data / "train" / "images") in other["source"]
    content = yaml.safe_load((data / "shapes.yaml").read_text())
    content |= {"TEST_IMAGES": "train/images", "TEST_MASKS": "train/masks"}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(content))
    test = evaluated(run, tmp_path, "-c", tmp_path / "test.yaml", "--split", "test")
    assert test["split"] == "test" and test["mIoU"] == other["mIoU"]
    with pytest.raises(UserError, match="no folder of test images: give --test-images"):
        evaluated(run, tmp_path, "--split", "test")


def test_evaluate_looks_as_inference_does(run, data, tmp_path):
    """Windows, the mirrored image and scales: the maps that inference writes, scored by hand."""
    looks = ["--slide", "--imgsz", "48", "--flip", "--scales", "1", "1.5"]
    results = evaluated(run, tmp_path / "eval", *looks)
    flags = ["--model", str(run / "best_model.pth"), "--input", str(data / "valid/images")]
    flags += ["--device", "cpu", "--out-dir", str(tmp_path / "infer"), *looks]
    assert infer_images(cli.parse(InferSegmentationImage, flags)) == 0
    right = total = 0
    for path in (data / "valid" / "masks").glob("*.png"):
        found = np.array(Image.open(tmp_path / "infer" / "masks" / path.name))
        truth = np.array(Image.open(path))
        right, total = right + int((found == truth).sum()), total + truth.size
    assert results["pixel_accuracy"] == pytest.approx(right / total, abs=1e-6)
    assert results["slide"] and results["scales"] == [1.0, 1.5]
    assert results["mIoU"] != evaluated(run, tmp_path / "plain")["mIoU"]


def test_windows_over_the_short_side_resize(run, data, tmp_path):
    """64 rows become 32 and windows are of 32: not those over the picture's own size."""
    looks = ["--slide", "--imgsz", "32"]
    small = evaluated(run, tmp_path, *looks, "--resize", "short")
    assert small["resize"] == "short" and small["pixel_accuracy"] > 0.5
    assert small["mIoU"] != evaluated(run, tmp_path, *looks)["mIoU"]
    with pytest.raises(UserError, match="--resize crop cuts off the borders"):
        evaluated(run, tmp_path, "--resize", "crop")


def test_training_validates_by_the_same_looks(run, data, tmp_path):
    looks = ["--slide", "--overlap", "0.5", "--epochs", "1"]
    row = train(cli.parse(TrainSegmentation, arguments(data, tmp_path / "run", *looks))).last
    again = evaluated(tmp_path / "run", tmp_path / "eval", *looks[:3])
    assert again["mIoU"] == pytest.approx(row["mIoU"], abs=1e-4)
    kept = [*looks, "--cache-features", "--no-fine-tune"]
    with pytest.raises(UserError, match="--slide look at pictures more than once"):
        train(cli.parse(TrainSegmentation, arguments(data, tmp_path / "kept", *kept)))


def test_evaluation_refuses_what_would_do_nothing_and_what_does_not_fit(run, data, tmp_path):
    from src.evaluate import EvaluateOptions, evaluate

    with pytest.raises(UserError, match="--threshold is not for segmentation"):
        evaluated(run, tmp_path, "--threshold", "0.5")
    with pytest.raises(UserError, match="--train-masks is not looked at with --split valid"):
        evaluated(run, tmp_path, "--train-masks", "x")
    content = yaml.safe_load((data / "shapes.yaml").read_text())
    content["ALL_CLASSES"] = ["ground", "box", "circle"]
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="trained on ground, circle, box: give a --config whose"):
        evaluated(run, tmp_path, "-c", tmp_path / "other.yaml")
    evaluated(run, tmp_path)
    with pytest.raises(UserError, match=r"holds an earlier evaluation .*--overwrite"):
        evaluate(EvaluateOptions(model=run / "best_model.pth", out_dir=tmp_path))


def test_a_loss_that_the_head_does_not_ask_for_is_refused(data, tmp_path):
    words = arguments(data, tmp_path, "--head", "queries", "--class-weights", "balanced")
    with pytest.raises(UserError, match="--head queries has a loss of its own"):
        cli.parse(TrainSegmentation, words)


def test_wrong_data_stops_before_training(data: Path, tmp_path: Path) -> None:
    options = cli.parse(TrainSegmentation, arguments(data, tmp_path / "run"))
    with pytest.raises(UserError, match="image without mask"):
        train(options.model_copy(update={"train_masks": data / "valid" / "masks"}))


def test_the_tutorials_command_is_understood() -> None:
    words = (
        "--train-images a --train-masks b --valid-images c --valid-masks d "
        "--config segmentation_configs/voc.yaml --weights w.pth --model-name dinov3_convnext_tiny "
        "--epochs 50 --out-dir voc_seg --imgsz 640 640 --batch 12 --feautre-extractor last "
        "--scheduler --scheduler-epochs 30 40"
    )
    options = cli.parse(TrainSegmentation, words.split())
    assert options.feature_extractor == "last" and options.imgsz == [640, 640]
    assert len(options.dataset.names) == 21
