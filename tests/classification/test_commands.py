"""Training, inference and evaluation of classification, from end to end."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from src import evaluate
from src.classification.infer import infer
from src.classification.settings import InferClassifier, TrainClassifier
from src.classification.train import train
from src.core import cli
from src.core.errors import UserError
from src.core.structures import Geometry, Size
from src.data.common.loaders import Batch
from src.data.labels.settings import LabelDataset
from src.visualise.draw import draw_ranking
from tests.classification.drawn import draw_folders
from tests.conftest import PROJECT
from tests.counting import calls
from tests.data.shards import write_shards

TINY = {"model_name": "dinov3_convnext_atto", "weights": "none", "imgsz": [32], "device": "cpu"}


def options(root: Path, **changes) -> TrainClassifier:
    values = {
        **TINY,
        "epochs": 1,
        "batch": 8,
        "workers": 0,
        "train_dir": root / "train",
        "valid_dir": root / "valid",
        "out_dir": root / "run",
        "dataset": LabelDataset(),
    }
    return TrainClassifier(**{**values, **changes})


def test_the_tutorials_command_is_understood(tmp_path):
    words = (
        "--train-dir a --valid-dir b --weights w.pth --model-name dinov3_vits16 --epochs 3 "
        "-lr 0.01 -b 16 --fine-tune --save-name mine --scheduler 5 8"
    )
    found = cli.parse(TrainClassifier, words.split())
    assert (found.lr, found.batch, found.save_name) == (0.01, 16, "mine")
    assert found.scheduler_epochs == [5, 8] and found.fine_tune and found.epochs == 3
    assert found.out_dir == Path("img_cls") and found.dataset.CLASS_NAMES is None
    words = "-w best.pth --input images --config c.yaml --model-name dinov3_vits16 --repo-dir r"
    assert cli.parse(InferClassifier, words.split()).model == Path("best.pth")


def test_knn_from_folder_to_files(tmp_path, caplog):
    """The neighbours of a picture of one colour are of that colour, random weights or not."""
    draw_folders(tmp_path, train=4, valid=2)
    with calls() as counted, caplog.at_level("INFO"):
        history = train(options(tmp_path, head="knn", knn_k=[1, 2, 3], save_name="mine"))
    told = caplog.messages[-1].split(": ")[1].replace("*.png", "loss.png").split(", ")
    assert told == ["best_model.pth", "history.csv", "loss.png"]  # no last_model.pth
    assert "top5" not in history.last  # of four classes
    assert history.last["top1"] == 1 and "top1_k3" in history.last
    batches = len(range(0, 16, 8)) + len(range(0, 8, 8))
    assert counted["tokens"] == batches  # each image once, whatever the number of k
    run = tmp_path / "run"
    names = {path.name for path in run.iterdir()}
    assert {"best_model.pth", "best_mine.pth", "history.csv", "confusion_matrix.png"} <= names
    assert {"reliability.png", "accuracy.png", "config.yaml"} <= names

    out = tmp_path / "found"
    code = infer(
        InferClassifier(
            model=run,
            input=[str(tmp_path / "valid")],  # as README has it: all images are in sub-folders
            out_dir=out,
            top=2,
            device="cpu",
            save_arrays=True,
        )
    )
    content = json.loads((out / "classes.json").read_text())
    assert code == 0 and content["classes"] == ["blue", "green", "red", "yellow"]
    assert len(content["images"]) == 8
    for image in content["images"]:
        best, second = image["top"]
        array = np.load(out / image["array"])
        assert array.shape == (4,) and array.max() == pytest.approx(best["probability"], abs=1e-5)
        assert best["name"] == Path(image["file_name"]).parent.name
        assert best["probability"] > second["probability"] and (out / image["output"]).is_file()
    rows = list(csv.DictReader((out / "classes.csv").open()))
    assert len(rows) == 16 and rows[0]["rank"] == "1" and rows[0]["name"] == "blue"

    with pytest.raises(UserError, match="--head says"):
        infer(
            InferClassifier(
                model=run / "best_model.pth", input=".", out_dir=out, head="linear", device="cpu"
            )
        )
    yaml = tmp_path / "data.yaml"
    yaml.write_text(f"DATA_ROOT: {tmp_path}\nTRAIN_DIR: train\nVALID_DIR: valid\n")
    results = evaluate.evaluate(
        evaluate.EvaluateOptions(
            model=run / "best_model.pth", config=yaml, workers=0, out_dir=tmp_path / "eval"
        )
    )
    assert results["top1"] == 1 and results["per_class"]["red"]["images"] == 2
    assert (tmp_path / "eval" / "reliability.png").is_file()
    rows = list(csv.DictReader((tmp_path / "eval" / "images.csv").open()))
    assert len(rows) == 8 and all(Path(row["image"]).is_file() for row in rows)
    assert all(row["truth"] == row["prediction"] in row["image"] for row in rows)
    assert all(0.25 < float(row["probability"]) <= 1 for row in rows)
    # Without a YAML: the folders of the run itself, or others.
    flags = {"model": run / "best_model.pth", "workers": 0, "out_dir": tmp_path / "more"}
    again = evaluate.evaluate(evaluate.EvaluateOptions(**flags))
    assert again["source"] == [str(tmp_path / "valid")] and again["images"] == 8
    other = {"split": "test", "test_dir": tmp_path / "train", "overwrite": True}
    results = evaluate.evaluate(evaluate.EvaluateOptions(**flags, **other))
    assert results["source"] == [str(tmp_path / "train")] and results["images"] > 8
    yaml.write_text(yaml.read_text() + "CLASS_NAMES: [red, green]\n")
    with pytest.raises(UserError, match="has the classes red, green, and the checkpoint was"):
        evaluate.evaluate(evaluate.EvaluateOptions(**flags, config=yaml, overwrite=True))


def test_logistic_on_kept_features(tmp_path):
    draw_folders(tmp_path, train=4, valid=2)
    kept = {"cache_features": True, "cache_dir": tmp_path / "kept", "cache_dtype": "float16"}
    history = train(options(tmp_path, head="logistic", **kept))
    assert history.last["top1"] == 1


def test_training_from_shards_is_that_of_the_folder_with_a_resumption(tmp_path):
    """The same pictures in the same order, with kept features, too; and any command reads them."""
    draw_folders(tmp_path, train=4, valid=2)
    shards = {
        f"{split}_dir": Path(write_shards(tmp_path / split, tmp_path / "tar" / split))
        for split in ("train", "valid")
    }
    more = {"augment": "crop", "epochs": 2, "lr": 1e-3}
    wanted = train(options(tmp_path, **more, out_dir=tmp_path / "folder"))
    train(options(tmp_path, **shards, **{**more, "epochs": 1}))
    found = train(options(tmp_path, **shards, **more, resume=True))
    losses = [history.column("loss")[1] for history in (wanted, found)]
    assert len(losses[1]) == 2 and losses[1] == pytest.approx(losses[0], rel=1e-5)
    kept = {"cache_features": True, "cache_dir": tmp_path / "kept", "augment": "none"}
    train(options(tmp_path, **shards, **kept, out_dir=tmp_path / "kept_run", epochs=2))
    code = infer(
        InferClassifier(
            model=tmp_path / "run" / "best_model.pth",
            input=str(shards["valid_dir"]),
            out_dir=tmp_path / "found",
            device="cpu",
        )
    )
    content = json.loads((tmp_path / "found" / "classes.json").read_text())
    assert code == 0 and len(content["images"]) == 8


def test_multi_label_with_mixing_and_resume(tmp_path):
    draw_folders(tmp_path, train=3, valid=1)
    for split in ("train", "valid"):
        paths = sorted(path.relative_to(tmp_path) for path in (tmp_path / split).glob("*/*.png"))
        warm = {"red": ",red,warm", "yellow": ",yellow|warm", "blue": "", "green": ",green"}
        rows = [f"{path},{warm[path.parent.name].lstrip(',')}" for path in paths]
        (tmp_path / f"{split}.csv").write_text("\n".join(rows))
    sources = {"train_dir": tmp_path / "train.csv", "valid_dir": tmp_path / "valid.csv"}
    more = {"mixup": 0.2, "cutmix": 1.0, "label_smoothing": 0.1, "balanced": True}
    history = train(options(tmp_path, **sources, **more, save_samples=True))
    assert 0 <= history.last["mAP"] <= 1 and (tmp_path / "run" / "samples.png").is_file()
    content = torch.load(tmp_path / "run" / "best_model.pth", weights_only=True)
    assert content["multi_label"] is True and content["classes"] == [
        "green", "red", "warm", "yellow",
    ]  # fmt: skip
    history = train(options(tmp_path, **sources, **more, epochs=2, resume=True))
    assert [row["epoch"] for row in history.rows] == [1, 2]
    flags = {"model": tmp_path / "run" / "best_model.pth", "workers": 0, "device": "cpu"}
    evaluate.evaluate(evaluate.EvaluateOptions(**flags, out_dir=tmp_path / "eval"))
    rows = list(csv.DictReader((tmp_path / "eval" / "images.csv").open()))
    assert sorted(row["truth"] for row in rows) == ["", "green", "red; warm", "warm; yellow"]
    for row in rows:
        sure = [float(value) for value in row["probability"].split("; ") if value]
        assert len(sure) == len(row["prediction"].split("; ")) * bool(row["prediction"])
        assert all(value >= 0.5 for value in sure)


def test_images_of_mixed_shapes_are_mixed(tmp_path):
    """--resize fit on wide and high photographs: the images differ in size within a batch."""
    from src.classification.train import build_loss

    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    geometries = [Geometry(Size(64, 64), Size(64, 64))] * 2
    labels = [{"label": torch.tensor(0)}, {"label": torch.tensor(1)}]
    batch = Batch(images, [(48, 64), (64, 48)], labels, [0, 1], geometries)
    seen = {}

    def model(images, targets):
        seen.update(images=images, targets=targets)
        return {}

    torch.manual_seed(1)
    build_loss(options(tmp_path, mixup=1.0), 2)(model, batch)
    assert [tuple(image.shape[1:]) for image in seen["images"]] == batch.sizes
    assert all(0 < float(target["labels"][0]) < 1 for target in seen["targets"])


def test_contradictions_are_told(tmp_path):
    draw_folders(tmp_path, train=1, valid=1)
    with pytest.raises(UserError, match="less than two"):
        train(options(tmp_path, mixup=0.2, batch=1))
    with pytest.raises(UserError, match="whole images"):
        train(options(tmp_path, head="knn", cutmix=1.0))
    with pytest.raises(UserError, match="--tune all"):
        train(options(tmp_path, head="knn", fine_tune=True))
    with pytest.raises(UserError, match="resume"):
        train(options(tmp_path, head="logistic", resume=True))


def test_the_picture_shows_the_ranking():
    import numpy as np

    image = np.full((120, 160, 3), 128, np.uint8)
    drawn = draw_ranking(image, ["ants 0.90", "bees 0.10"], [1, 2])
    assert (drawn != image).any() and (image == 128).all()
    assert (drawn[60:] == 128).all() and (drawn[:40, :60] != 128).any()


def test_sigterm_to_all_processes_saves_and_says_no_more(tmp_path):
    """As timeout, Slurm and Kubernetes send it: the loaders' processes get it as well."""
    draw_folders(tmp_path, train=40, valid=4)
    words = [sys.executable, "train_classifier.py", "--model-name", "dinov3_convnext_atto"]
    words += [
        "--weights",
        "none",
        "--fine-tune",
        "--imgsz",
        "96",
        "--batch",
        "4",
        "--device",
        "cpu",
    ]
    words += ["--train-dir", tmp_path / "train", "--valid-dir", tmp_path / "valid", "--workers", 2]
    words += ["--out-dir", tmp_path / "run", "--epochs", "100"]
    process = subprocess.Popen(
        [str(word) for word in words], cwd=PROJECT, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "history.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "stopped and saved" in out, out + err
    assert err.split() == ["interrupted"]
