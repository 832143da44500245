"""``--cache-features`` of the tasks with maps: training does not see the cache, and what a row is
made of misses it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from src.core.cli import parse
from src.core.errors import UserError
from src.core.files import write_json
from src.data.common.images import write_image
from src.data.depths.reader import write_depth
from src.data.masks.reader import write_mask
from src.depth.settings import TrainDepth
from src.depth.train import train as train_depth
from src.detection.settings import TrainDetection
from src.detection.train import train as train_detection
from src.segmentation.settings import TrainSegmentation
from src.segmentation.train import train as train_segmentation

SIZES = [(40, 64), (64, 40), (50, 50)]  # (h, w): three padded sizes of 64 and below
COLOURS = np.random.default_rng(0).integers(0, 255, (256, 3)).astype(np.uint8)


def draw(root: Path) -> Path:
    """Six images for training and three for validation with masks, boxes (one has none) and
    depths, and the YAML of each task."""
    for split, count in (("train", 6), ("valid", 3)):
        images, annotations = [], []
        for number in range(count):
            height, width = SIZES[number % 3]
            rng = np.random.default_rng(number + 10 * count)
            mask = np.zeros((height, width), np.uint8)
            x, y = (int(v) for v in rng.integers(4, 20, 2))
            if number != 1:
                cv2.rectangle(mask, (x, y), (x + 15, y + 11), 1, -1)
                box = {"bbox": [x, y, 16, 12], "category_id": 1, "area": 192, "iscrowd": 0}
                annotations.append({"id": number + 1, "image_id": number, **box})
            noise = rng.integers(0, 60, (height, width, 3)).astype(np.uint8)
            name = f"{number}.png"
            write_image(root / split / "images" / name, noise + mask[..., None] * 180)
            write_mask(root / split / "masks" / name, mask)
            write_depth(root / split / "depths" / name, 1 + mask + noise[..., 0] / 100)
            images.append({"id": number, "file_name": name, "height": height, "width": width})
        classes = [{"id": 1, "name": "box"}]
        content = {"images": images, "annotations": annotations, "categories": classes}
        write_json(root / split / "boxes.json", content)
    folders = "\n".join(
        f"{split.upper()}_{what.upper()}: {split}/{what}"
        for split in ("train", "valid")
        for what in ("images", "masks", "depths")
    )
    texts = {
        "segmentation": "ALL_CLASSES: [ground, box]\n"
        + "\n".join(line for line in folders.splitlines() if "DEPTHS" not in line),
        "depth": "\n".join(line for line in folders.splitlines() if "MASKS" not in line),
        "detection": "FORMAT: coco\nCLASSES: [__background__, box]\n"
        "TRAIN_IMG: train/images\nTRAIN_ANNOT: train/boxes.json\n"
        "VALID_IMG: valid/images\nVALID_ANNOT: valid/boxes.json",
    }
    for task, text in texts.items():
        (root / f"{task}.yaml").write_text(f"DATA_ROOT: {root}\n{text}\n")
    return root


TASKS: dict[str, tuple[type, Callable[[Any], Any], list[str]]] = {
    "segmentation": (TrainSegmentation, train_segmentation, ["--head", "linear"]),
    "detection": (
        TrainDetection,
        train_detection,
        ["--head", "retinanet", "--pyramid-channels", "16"],
    ),
    "depth": (TrainDepth, train_depth, ["--head", "linear", "--bins", "16"]),
}
SCORES = {"segmentation": "mIoU", "detection": "mAP", "depth": "RMSE"}


def run(root: Path, task: str, name: str, *flags: object) -> list[dict[str, float]]:
    """The history of a run of two epochs in ``root``."""
    settings, train, more = TASKS[task]
    words = ["--config", root / f"{task}.yaml", "--out-dir", root / name, "--imgsz", 64, 64]
    words += ["--model-name", "dinov3_vitt16", "--weights", "none", "--epochs", 2, "--batch", 3]
    words += ["--workers", 0, "--device", "cpu", "--augment", "none", "--lr", 0.01, "--skip-check"]
    words += ["--resize", "fit", "--cache-dir", root / "kept", *more, *flags]
    return train(parse(settings, [str(word) for word in words])).rows


@pytest.fixture
def forwards(monkeypatch) -> list[int]:
    """How many images each call of a backbone took (but for the blank one that fills maps up)."""
    from src.backbones.base import Backbone

    calls: list[int] = []
    plain = Backbone.forward

    def counted(self, x, *args, **kwargs):
        if x.any() or x.shape[-1] > 32:
            calls.append(len(x))
        return plain(self, x, *args, **kwargs)

    monkeypatch.setattr(Backbone, "forward", counted)
    return calls


@pytest.mark.parametrize("task", list(TASKS))
def test_training_does_not_see_the_cache(task, tmp_path, forwards):
    """The same losses and scores but for rounding, on images of three sizes; each image goes
    through the backbone once, and of a second run none (one probe of the shapes each)."""
    root = draw(tmp_path)
    plain = run(root, task, "plain")
    assert sum(forwards) == 2 * (6 + 3)
    forwards.clear()
    kept = run(root, task, "kept_run", "--cache-features", "--save-samples")
    assert sum(forwards) == 6 + 3 + 2
    assert (root / "kept_run" / "samples.png").is_file()
    forwards.clear()
    again = run(root, task, "again", "--cache-features")
    assert sum(forwards) == 2
    for ours, theirs, later in zip(kept, plain, again):
        for name in ours:
            if name.startswith("loss") or name == SCORES[task]:
                assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-4), name
                assert ours[name] == later[name], name


def there(caplog) -> list[int]:
    """How many rows of training and validation the latest run found."""
    found = [
        int(record.getMessage().split(" MiB, ")[1].split(" there")[0])
        for record in caplog.records
        if record.getMessage().startswith("feature cache of")
    ]
    caplog.clear()
    return found


@pytest.mark.parametrize("task", list(TASKS))
def test_what_a_row_is_made_of_misses(task, tmp_path, caplog):
    root, folder = draw(tmp_path), tmp_path / "train"
    flags = ("--cache-features", "--epochs", 1)
    with caplog.at_level(logging.INFO):
        run(root, task, "first", *flags)
        assert there(caplog) == [0, 0]
        run(root, task, "second", *flags)
        assert there(caplog) == [6, 3]
        shutil.copy(folder / "images" / "0.png", folder / "images" / "3.png")
        run(root, task, "image", *flags)
        assert there(caplog) == [5, 3]
        if task == "detection":
            text = (folder / "boxes.json").read_text().replace("192", "193")
            (folder / "boxes.json").write_text(text)  # what no target is made of
            run(root, task, "area", *flags)
            assert there(caplog) == [6, 3]
            text = text.replace("16,\n    12", "17,\n    12", 1)
            (folder / "boxes.json").write_text(text)
        else:
            what = {"segmentation": "masks", "depth": "depths"}[task]
            shutil.copy(folder / what / "0.png", folder / what / "3.png")
        run(root, task, "truth", *flags)
        assert there(caplog) == [5, 3]


def test_other_rules_for_the_same_masks_miss(tmp_path, caplog):
    root = draw(tmp_path)
    with caplog.at_level(logging.INFO):
        run(root, "segmentation", "first", "--cache-features", "--epochs", 1)
        with (root / "segmentation.yaml").open("a") as file:
            file.write("INDEX_MAP: {0: 1, 1: 0}\n")
        run(root, "segmentation", "second", "--cache-features", "--epochs", 1)
    assert there(caplog) == [0, 0, 0, 3]


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_a_damaged_row_is_told_and_made_again(task, tmp_path, caplog, forwards):
    root = draw(tmp_path)
    first = run(root, task, "first", "--cache-features")
    rows = max((root / "kept").glob("*/rows.bin"), key=lambda path: path.stat().st_size)
    content = bytearray(rows.read_bytes())
    content[100] ^= 255
    rows.write_bytes(content)
    forwards.clear()
    with caplog.at_level(logging.WARNING):
        again = run(root, task, "again", "--cache-features")
    assert "damaged row" in caplog.text and sum(forwards) == 2 + 1
    assert [row["loss"] for row in again] == [row["loss"] for row in first]


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_several_views_take_turns(task, tmp_path, forwards):
    root = draw(tmp_path)
    preset = {"segmentation": "jitter", "detection": "ssd"}[task]  # other sizes, fewer boxes
    flags = ("--cache-features", "--cache-views", 2, "--augment", preset, "--epochs", 4)
    first = run(root, task, "first", *flags)
    assert sum(forwards) == 2 * 6 + 3 + 2
    forwards.clear()
    again = run(root, task, "again", *flags, "--cache-dtype", "float32")
    assert sum(forwards) == 2
    assert [row["loss"] for row in again] == [row["loss"] for row in first]


def test_what_cannot_be_kept_is_refused(tmp_path, monkeypatch):
    root = draw(tmp_path)
    with pytest.raises(UserError, match="frozen"):
        run(root, "segmentation", "fine", "--cache-features", "--fine-tune")
    with pytest.raises(UserError, match="--flip mirrors"):
        run(root, "depth", "flip", "--cache-features", "--flip-average")
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=200_000))
    with pytest.raises(UserError, match=r"feature cache needs .* MiB more.*float16"):
        run(root, "segmentation", "full", "--cache-features")
    assert not torch.is_inference_mode_enabled()
