"""The commands on real files: train, resume, evaluate, infer on images and a video."""

from __future__ import annotations

import csv
import json
import shutil
from fractions import Fraction
from pathlib import Path

import cv2
import pytest
import torch
import yaml

from src.compare import CompareOptions, compare
from src.core.cli import parse
from src.core.errors import UserError
from src.core.structures import Size
from src.data.drawn.boxes import draw_dataset, draw_frames
from src.detection.infer import infer_images, infer_video
from src.detection.settings import InferDetectionImage, InferDetectionVideo, TrainDetection
from src.detection.train import train
from src.evaluate import EvaluateOptions, evaluate
from src.predict.video import VideoWriter
from tests.conftest import PROJECT

CONFIG = PROJECT / "detection_configs" / "demo.yaml"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return draw_dataset(tmp_path_factory.mktemp("boxes"), train=8, valid=4)


def options(data: Path, out: Path, *flags: object) -> TrainDetection:
    fixed = ["--config", CONFIG, "--data-root", data, "--out-dir", out, "--workers", 0]
    fixed += ["--imgsz", 96, 96, "--batch", 4, "--model-name", "dinov3_convnext_atto"]
    return parse(TrainDetection, [str(word) for word in [*fixed, *flags]], "train_detection.py")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(options(data, folder, "--epochs", 1, "--save-samples"))
    return folder


def test_a_run_leaves_what_it_promises(run):
    names = {path.name for path in run.iterdir()}
    assert {"best_model.pth", "last_model.pth", "config.yaml", "history.csv", "samples.png",
            "train_loss.png", "map.png", "tensorboard"} <= names  # fmt: skip
    row = next(csv.DictReader((run / "history.csv").open()))
    assert {"loss", "lr", "images_per_second", "mAP", "mAP50", "small"} <= set(row)
    checkpoint = torch.load(run / "best_model.pth", weights_only=True)
    assert checkpoint["classes"] == ["__background__", "circle", "square", "triangle", "cross"]
    assert checkpoint["image_size"] == [96, 96]


def test_a_second_run_needs_a_word_and_resume_goes_on(run, data):
    with pytest.raises(UserError, match=r"holds an earlier run.*--resume.*--overwrite"):
        train(options(data, run, "--epochs", 1))
    history = train(options(data, run, "--epochs", 2, "--resume"))
    assert [row["epoch"] for row in history.rows] == [1, 2]


def test_resume_alone_goes_on_with_the_runs_own_options(run, data, caplog, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    done = len(list(csv.DictReader((folder / "history.csv").open())))
    caplog.set_level("INFO")
    words = ["--resume", "--out-dir", str(folder), "--epochs", str(done + 1)]
    history = train(parse(TrainDetection, words))
    assert len(history.rows) == done + 1
    said = f"those given now: epochs {done + 1} (it was {done})"
    assert said in caplog.text and "options that differ" in caplog.text


def test_a_trained_detector_starts_one_on_other_classes(run, data, tmp_path, caplog):
    config = yaml.safe_load(CONFIG.read_text())
    config["CLASSES"] = ["__background__", "cross", "star", "circle", "square", "triangle"]
    del config["TRAIN"]
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(config))
    words = ["--config", other, "--data-root", data, "--out-dir", tmp_path / "new", "--workers", 0]
    words += ["--init", run, "--batch", 4, "--lr", 1e-12, "--ema", 0, "--weight-decay", 0]
    words += ["--epochs", 1, "--no-fine-tune"]
    caplog.set_level("INFO")
    train(parse(TrainDetection, [str(word) for word in words]))
    assert "rows of the classes: cross, circle" in caplog.text and "anew: star" in caplog.text
    assert "RANDOM" not in caplog.text
    old, new = (
        torch.load(path / "best_model.pth", weights_only=True) for path in (run, tmp_path / "new")
    )
    assert new["backbone"]["name"] == old["backbone"]["name"]
    assert (new["head"], new["image_size"]) == (old["head"], old["image_size"])
    for name in old["model"]:
        if not name.startswith(("head.classes.", "head.classification_head")):
            assert torch.allclose(new["model"][name], old["model"][name], atol=1e-5), name
    rows = "head.classification_head.module_list.0.bias"  # of each anchor: background, classes
    before, after = (one["model"][rows].view(-1, n) for one, n in ((old, 5), (new, 6)))
    assert torch.allclose(after[:, [1, 3, 4, 5]], before[:, [4, 1, 2, 3]], atol=1e-5)
    with pytest.raises(UserError, match="--init starts a training from it"):
        train(options(data, tmp_path / "x", "--weights", run / "best_model.pth"))


def test_runs_are_compared(run, data, tmp_path, caplog):
    other = tmp_path / "other"
    train(options(data, other, "--epochs", 1, "--lr", 0.5e-3))
    caplog.set_level("INFO")
    said = compare(parse(CompareOptions, [str(run), str(other), "--out-dir", str(tmp_path / "c")]))
    assert said["options"]["lr"][1] == "0.0005" and "head" not in said["options"]
    assert "mAP50" in said["best"][str(other)] and "of the best epoch" in caplog.text
    assert {"mAP.png", "loss.png"} <= {path.name for path in (tmp_path / "c").iterdir()}
    with pytest.raises(UserError, match="holds no history.csv"):
        compare(parse(CompareOptions, [str(run), str(tmp_path)]))


def test_a_frozen_backbone_is_bit_equal_after_training(data, tmp_path):
    from src.backbones.build import build_backbone

    file = tmp_path / "weights.pth"
    before = build_backbone("dinov3_vitt16").hub_model.state_dict()
    torch.save(before, file)
    flags = ["--model-name", "dinov3_vitt16", "--weights", file, "--head", "fcos", "--epochs", 1]
    recipe = options(data, tmp_path / "run", *flags).model_copy(update={"fine_tune": False})
    train(recipe)
    after = torch.load(tmp_path / "run" / "last_model.pth", weights_only=True)
    prefix = "backbone.hub_model."
    assert all(torch.equal(after["model"][prefix + key], value) for key, value in before.items())
    trained = after["training"]["optimizer"]
    assert not [name for name in trained if str(name).startswith("backbone.")]


def test_evaluation_writes_figures_and_pictures(run, data, tmp_path):
    results = evaluate(
        EvaluateOptions(
            model=run / "best_model.pth", config=CONFIG, data_root=data, workers=0, out_dir=tmp_path
        )
    )
    assert json.loads((tmp_path / "results.json").read_text())["mAP50"] == results["mAP50"]
    assert results["images"] == 4
    assert set(results["per_class"]) == {"circle", "square", "triangle", "cross"}
    rows = list(csv.DictReader((tmp_path / "images.csv").open()))
    assert len(rows) == 4 and {"image", "errors", "missed", "false", "misplaced"} <= set(rows[0])
    suggested = torch.load(run / "best_model.pth", weights_only=True)["suggested"]
    assert suggested["all"].keys() == {"threshold", "precision", "recall", "F1"}
    for name in ("pr_curves.png", "confusion_matrix.png", "score_curves.png", "worst.jpg"):
        assert cv2.imread(str(tmp_path / name)) is not None


def test_evaluation_of_other_images_and_of_sure_detections(run, data, tmp_path):
    flags = {"model": run / "best_model.pth", "workers": 0, "out_dir": tmp_path, "overwrite": True}
    sure = evaluate(EvaluateOptions(**flags, threshold=1.0))  # the data of its own run
    assert sure["images"] == 4 and sure["source"] == [
        str(data / "valid" / "images"), str(data / "valid" / "labels"),
    ]  # fmt: skip
    rows = sure["at_threshold"].values()
    assert all(row["recall"] in (0, None) and row["precision"] is None for row in rows)
    every = evaluate(EvaluateOptions(**flags, threshold=0.0))
    assert every["mAP"] == sure["mAP"]
    assert max(row["recall"] or 0 for row in every["at_threshold"].values()) > 0
    loose = evaluate(EvaluateOptions(**flags, threshold=0.0, nms=1.0))
    assert loose["nms"] == 1.0 and loose["mAP"] < every["mAP"]  # doubles are left
    folders = {"test_img": data / "train/images", "test_annot": data / "train/labels"}
    other = evaluate(EvaluateOptions(**flags, **folders, split="test"))
    assert other["images"] == 8 and other["split"] == "test"
    with pytest.raises(UserError, match="no test data: give --test-img, or TEST_IMG"):
        evaluate(EvaluateOptions(**flags, split="test"))


def test_images_need_the_checkpoint_alone(run, data, tmp_path):
    code = infer_images(
        InferDetectionImage(
            model=run / "best_model.pth",
            input=str(data / "valid" / "images"),
            out_dir=tmp_path,
            threshold=0.0,
        )
    )
    assert code == 0
    found = json.loads((tmp_path / "detections.json").read_text())
    assert {entry["image_id"] for entry in found} <= {1, 2, 3, 4}
    assert len(list(tmp_path.glob("*.jpg")) + list(tmp_path.glob("*.png"))) == 4


def test_a_video_keeps_its_frames(run, tmp_path):
    writer = VideoWriter(tmp_path / "in.mp4", Size(128, 96), Fraction(25))
    for frame in draw_frames(9, Size(128, 96)):
        writer.write(frame.image)
    writer.close()
    video = InferDetectionVideo(
        model=run / "best_model.pth", input=str(tmp_path / "in.mp4"), out_dir=tmp_path / "out"
    )
    assert infer_video(video) == 0
    capture = cv2.VideoCapture(str(tmp_path / "out" / "in.mp4"))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 9
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(25)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"model_name": "dinov3_vits16"}, "--model-name says dinov3_vits16, the checkpoint has"),
        ({"head": "fcos"}, "--head says fcos, the checkpoint has ssd"),
        ({"config": PROJECT / "detection_configs" / "voc.yaml"}, "aeroplane.*circle"),
    ],
)
def test_contradictions_name_both_sides(run, tmp_path, flags, message):
    call = InferDetectionImage(
        model=run / "best_model.pth", input=str(tmp_path), out_dir=tmp_path, **flags
    )
    with pytest.raises(UserError, match=message):
        infer_images(call)


def test_mosaics_train_and_are_not_kept(data, tmp_path):
    history = train(options(data, tmp_path / "run", "--augment", "mosaic", "--epochs", 2))
    assert len(history.rows) == 2
    kept = ["--augment", "mosaic", "--cache-features", "--cache-views", 2, "--no-fine-tune"]
    with pytest.raises(UserError, match="mosaic joins images"):
        train(options(data, tmp_path / "kept", *kept))


def test_tiles_at_inference_and_evaluation(run, data, tmp_path):
    flags = {"model": run / "best_model.pth", "tiles": 2}
    images = str(data / "valid" / "images")
    call = InferDetectionImage(input=images, out_dir=tmp_path / "images", threshold=0.0, **flags)
    assert infer_images(call) == 0
    found = json.loads((tmp_path / "images" / "detections.json").read_text())
    assert found and all(min(entry["bbox"]) >= 0 for entry in found)
    results = evaluate(EvaluateOptions(**flags, workers=0, out_dir=tmp_path / "scores"))
    assert results["images"] == 4 and results["tiles"] == 2
