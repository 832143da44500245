"""The full examination of classification data, and the command that finds out what a YAML is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from src.data import check
from src.data.common.faults import Fault
from src.data.common.images import read_image, write_image
from src.data.labels.doctor import examine_labels
from src.data.labels.reader import read_labels
from src.data.labels.settings import LabelDataset
from tests.classification.drawn import draw_folders

NAMES = ["blue", "green", "red", "yellow"]


def found_in(root: Path, **more: object) -> dict[str, list[Fault]]:
    dataset = LabelDataset(TRAIN_DIR="train", VALID_DIR="valid", **more)
    report = examine_labels(read_labels(dataset, root), workers=2)
    return {split: part.faults for split, part in report.splits.items()}


def kinds(faults: list[Fault]) -> list[tuple[str, str]]:
    return sorted((fault.kind, fault.severity) for fault in faults)


def test_good_folders(tmp_path: Path) -> None:
    draw_folders(tmp_path, train=3, valid=1)
    data = read_labels(LabelDataset(TRAIN_DIR="train", VALID_DIR="valid"), tmp_path)
    report = examine_labels(data)
    assert report.errors == 0 and report.text().startswith("no faults")
    assert report.splits["train"].counts == [3, 3, 3, 3]
    assert "shorter side, middle" in report.text()
    assert report.as_dict()["valid"]["images_of"] == dict.fromkeys(NAMES, 1)


def test_every_fault_is_told(tmp_path: Path) -> None:
    draw_folders(tmp_path, train=3, valid=2)
    train, valid = tmp_path / "train", tmp_path / "valid"
    same = read_image(train / "red" / "0.png")
    write_image(train / "red" / "copy.bmp", same)
    write_image(train / "blue" / "copy.bmp", same)
    write_image(valid / "red" / "copy.png", same)
    cut = train / "green" / "1.png"
    cut.write_bytes(cut.read_bytes()[:-40])
    write_image(train / "loose.png", np.zeros((8, 8, 3), np.uint8))
    (train / "nothing").mkdir()
    for path in (valid / "yellow").iterdir():
        path.unlink()
    faults = found_in(tmp_path, CLASS_NAMES=["blue", "green", "red", "yelow"])
    assert kinds(faults["train"]) == [
        ("class without images", "warning"),
        ("duplicate", "warning"),
        ("duplicate", "warning"),
        ("empty class", "warning"),
        ("image without class", "warning"),
        ("one picture, two classes", "warning"),
        ("one picture, two classes", "warning"),
        ("unknown class", "error"),
        ("unknown class", "error"),
        ("unknown class", "error"),
        ("unreadable image", "error"),
    ]
    assert kinds(faults["valid"]) == [
        ("class without images", "warning"),
        ("duplicate of train", "warning"),
        ("empty class", "warning"),
        ("one picture, two classes", "warning"),
    ]
    texts = {fault.kind: fault.detail for fault in faults["train"]}
    assert "did you mean 'yelow'" in texts["unknown class"]
    assert texts["one picture, two classes"].endswith("which is: blue")
    assert "loose.png" in texts["image without class"]


def run(monkeypatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["check", *words])
    with pytest.raises(SystemExit) as end:
        check.main()
    return int(end.value.code or 0)


def test_the_command_takes_a_csv(tmp_path: Path, monkeypatch) -> None:
    draw_folders(tmp_path, train=2, valid=1)
    rows = ["path,label", "train/red/0.png,red|big", "train/red/1.png", "train/blue/9.png,blue"]
    rows += ["train/blue/1.png,blue", "train/blue/1.png,big"]
    (tmp_path / "train.csv").write_text("\n".join(rows))
    (tmp_path / "valid.csv").write_text("valid/red/2.png,red\nvalid/blue/2.png,blue")
    config = {"DATA_ROOT": str(tmp_path), "TRAIN_CSV": "train.csv", "VALID_CSV": "valid.csv"}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**config, "TRAIN": {"lr": 1e-3}}))
    out = tmp_path / "out"
    assert run(monkeypatch, "--config", str(tmp_path / "c.yaml"), "--out-dir", str(out)) == 1
    report = json.loads((out / "report.json").read_text())
    assert [f["kind"] for f in report["train"]["faults"]] == ["missing image", "repeated image"]
    assert report["train"]["images_without_class"] == 1
    assert report["train"]["images_of"] == {"big": 2, "blue": 1, "red": 1}
    assert "(without a class)" in (out / "report.txt").read_text()
    assert read_image(out / "samples_train.jpg").size


def test_the_command_takes_folders_without_a_yaml(tmp_path: Path, monkeypatch) -> None:
    draw_folders(tmp_path, train=2, valid=1)
    words = ["--train-dir", str(tmp_path / "train"), "--valid-dir", str(tmp_path / "valid")]
    assert run(monkeypatch, *words, "--out-dir", str(tmp_path / "out"), "--samples", "4") == 0
    sheet = read_image(tmp_path / "out" / "samples_valid.jpg").astype(int)
    # One of each class: a good part of the sheet is red, and a good part blue.
    assert ((sheet[..., 0] - sheet[..., 2]) > 80).mean() > 0.05
    assert ((sheet[..., 2] - sheet[..., 0]) > 80).mean() > 0.05


def test_the_kind_shows_by_the_keys() -> None:
    project = Path(check.__file__).resolve().parents[2]
    expected = {
        "detection_configs": "detection",
        "segmentation_configs": "segmentation",
        "classification_configs": "classification",
        "depth_configs": "depth",
    }
    for folder, kind in expected.items():
        for path in sorted((project / folder).glob("*.yaml")):
            content = yaml.safe_load(path.read_text())
            task = content.get("TRAIN", {}).get("task")
            assert check.kind_of(content, task) == kind, path
    assert check.kind_of(["TRAIN_DEPTHS", "DATA_ROOT"]) == "depth"  # as flags name them
    assert check.kind_of([]) == "detection"
