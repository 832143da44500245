"""The quick check and the full examination tell every fault; the command's report and exit code."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from src.core.config import load_yaml, to_yaml
from src.core.errors import UserError
from src.data.boxes.doctor import examine, quick_check
from src.data.boxes.reader import read_split
from src.data.boxes.settings import BoxDataset
from src.data.common.faults import report_faults
from src.data.common.images import read_image, write_image
from tests.data.helpers import NAMES, FlatVoc, kinds, picture, voc_object

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def flat(tmp_path):
    return FlatVoc(tmp_path / "set")


def both(flat, **more):
    dataset = flat.dataset(**more)
    return {split: read_split(dataset, split) for split in ("train", "valid")}


def run_quick(flat, **options):
    splits = both(flat)
    faults = [fault for _, found in splits.values() for fault in found]
    records = {split: records for split, (records, _) in splits.items()}
    return quick_check(records, faults, NAMES, **options)


def test_good_data(flat):
    assert run_quick(flat) == []
    report = examine(both(flat), NAMES)
    assert report.errors == 0 and report.text().startswith("no faults")
    assert report.splits["train"].objects == [0, 1, 1]
    assert report.splits["train"].images_with == [0, 1, 1]


def test_quick_check_lists_errors(flat):
    flat.add("a", [voc_object("bird")])
    flat.add("b")
    flat.xml("b").write_text("<annotation>")
    flat.add("c").write_bytes(b"no image")
    flat.add("d", [voc_object(box=(5, 5, 90, 20))])
    with pytest.raises(UserError) as caught:
        run_quick(flat)
    message = str(caught.value)
    for word in (
        "3 faults",
        "'bird'",
        "not valid XML",
        "cannot read image",
        "c.png",
        "src.data.check",
    ):
        assert word in message
    assert "clipped" not in message  # repaired: not for this list


def test_quick_check_logs_repairs_and_warnings(flat, caplog):
    flat.add("a", [voc_object(box=(5, 5, 90, 20))])
    flat.add("b", [])
    flat.add("c", [voc_object(), voc_object()])
    with caplog.at_level(logging.INFO, "src.data.common.faults"):
        found = run_quick(flat)
    wanted = {("box over the edge", "repaired"), ("empty", "warning"), ("repeated box", "warning")}
    assert set(kinds(found)) == wanted
    assert "1 x box over the edge" in caplog.text and "clipped" in caplog.text


def test_no_records_or_no_objects(flat):
    flat.xml("ok").unlink()
    with pytest.raises(UserError, match="no image that can be used"):
        run_quick(flat)
    flat.add("ok", [])
    with pytest.raises(UserError, match="train data have no object at all"):
        run_quick(flat)


def test_class_without_objects(flat):
    flat.add("ok", [voc_object("cat")])
    found = run_quick(flat)
    assert kinds(found) == [("class without objects", "warning")] and "'dog'" in found[0].detail


def test_wrong_size(flat):
    flat.add("fits", size=(300, 200))
    assert kinds(run_quick(flat)) == [("wrong size", "warning")]
    assert run_quick(flat, headers=0) == []
    flat.add("beyond", [voc_object(box=(100, 100, 200, 150))], size=(300, 200))
    with pytest.raises(UserError, match=r"wrong size: .*300x200.*64x48"):
        run_quick(flat)
    assert set(kinds(examine(both(flat), NAMES).splits["train"].faults)) == {
        ("wrong size", "warning"),
        ("wrong size", "error"),
    }


def test_rotated_photograph_with_unrotated_annotation(flat):
    """The annotator's tool ignored EXIF: the boxes are where nothing is."""
    path = flat.add("phone", [voc_object(box=(50, 5, 60, 20))], suffix=".jpg")
    stored = Image.fromarray(picture(64, 48))
    exif = stored.getexif()
    exif[0x0112] = 6
    stored.save(path, exif=exif)
    with pytest.raises(UserError, match="wrong size"):
        run_quick(flat)


def test_unreadable_and_truncated(flat):
    path = flat.add("cut", suffix=".jpg")
    path.write_bytes(path.read_bytes()[:-20])
    run_quick(flat)  # the header is all right
    report = examine(both(flat), NAMES, workers=2)
    assert kinds(report.splits["train"].faults) == [("unreadable image", "error")]
    assert report.errors == 1 and "cut.jpg" in report.text()


def test_duplicates(flat):
    one = flat.add("one")
    for name, split in (("two.bmp", "train"), ("three.png", "valid")):
        other = flat.add(Path(name).stem, split=split, suffix=Path(name).suffix)
        write_image(other, read_image(one))  # the same pixels, another file
    report = examine(both(flat), NAMES, workers=3)
    assert kinds(report.splits["train"].faults) == [("duplicate", "warning")]
    assert kinds(report.splits["valid"].faults) == [("duplicate of train", "warning")]
    detail = report.splits["valid"].faults[0].detail
    assert "of train" in detail


def test_the_same_folder_for_both_splits(flat):
    records, _ = read_split(flat.dataset(), "train")
    found = quick_check({"train": records, "valid": records}, [], NAMES)
    assert kinds(found) == [("duplicate of train", "warning")]


def run_check(flat, tmp_path, *flags):
    config = tmp_path / "config.yaml"
    config.write_text(to_yaml(flat.dataset()) + "TRAIN: {lr: 1e-3, imgsz: [64]}\n")
    return subprocess.run(
        [sys.executable, "-m", "src.data.check", "--config", str(config), *flags],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )


def test_command(flat, tmp_path):
    flat.add("a", [voc_object(box=(5, 5, 90, 20))])
    done = run_check(flat, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "box over the edge" in done.stdout and "train objects" in done.stdout
    folder = tmp_path / "outputs" / "data_check"
    report = json.loads((folder / "report.json").read_text())
    assert report["train"]["objects"] == {"cat": 2, "dog": 1}
    assert [fault["kind"] for fault in report["train"]["faults"]] == ["box over the edge"]
    assert (folder / "report.txt").read_text().strip() in done.stdout
    for split in ("train", "valid"):
        assert read_image(folder / f"samples_{split}.jpg").size


def test_command_with_errors(flat, tmp_path):
    flat.add("a", [voc_object("bird")])
    flat.add("b").write_bytes(b"")
    done = run_check(flat, tmp_path, "--out-dir", "here", "--samples", "2")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "unknown class" in done.stdout and "unreadable image" in done.stdout
    assert "2 faults would stop a training run" in done.stdout
    assert (tmp_path / "outputs" / "here" / "report.json").is_file()


def test_without_the_check_it_is_said_what_is_left_out(flat, caplog):
    flat.add("a", [voc_object("bird"), voc_object()])
    records, faults = read_split(flat.dataset(), "train")
    with caplog.at_level(logging.INFO, "src.data.common.faults"):
        assert report_faults(faults, stop=False) == faults
    assert "left out: 1 x unknown class" in caplog.text and "'bird'" in caplog.text


def test_a_data_set_that_is_not_there_says_how_to_get_it(tmp_path):
    content = load_yaml(PROJECT / "detection_configs" / "demo.yaml")
    content.pop("TRAIN")
    with pytest.raises(UserError, match=r"no such folder.*src\.data\.drawn\.boxes.*--data-root"):
        read_split(BoxDataset(**content), "train", tmp_path / "nowhere")
