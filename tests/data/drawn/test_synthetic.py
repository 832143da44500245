"""The drawn data set: deterministic, complete or redrawn, true boxes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from src.core.config import load_yaml, validate
from src.core.errors import UserError
from src.core.structures import Size
from src.data.boxes.reader import read_split
from src.data.boxes.settings import BoxDataset
from src.data.drawn.boxes import NAMES, draw_dataset, draw_frames, draw_scene

DEMO = Path(__file__).resolve().parents[3] / "detection_configs" / "demo.yaml"


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest() for path in files
    }


def demo_dataset() -> BoxDataset:
    content = load_yaml(DEMO)
    content.pop("TRAIN", None)
    return validate(BoxDataset, content, str(DEMO))


def test_drawn_as_the_demo_yaml_says(tmp_path):
    draw_dataset(tmp_path, train=12, valid=4)
    assert demo_dataset().names == NAMES
    for split, count in (("train", 12), ("valid", 4)):
        records, faults = read_split(demo_dataset(), split, tmp_path)
        assert len(records) == count and not faults
        assert all(len(record.boxes) for record in records)
        assert all(160 <= side <= 256 for record in records for side in record.size)
    labels = np.concatenate(
        [record.labels for record in read_split(demo_dataset(), "train", tmp_path)[0]]
    )
    assert set(labels) == {1, 2, 3, 4}


def test_same_seed_same_files(tmp_path):
    first = digest(draw_dataset(tmp_path / "a", 5, 2, seed=4))
    assert first == digest(draw_dataset(tmp_path / "b", 5, 2, seed=4))
    other = digest(draw_dataset(tmp_path / "c", 5, 2, seed=5))
    assert first.keys() == other.keys() and first != other
    train, valid = tmp_path / "a/train/images", tmp_path / "a/valid/images"
    contents = [path.read_bytes() for folder in (train, valid) for path in folder.iterdir()]
    assert len(set(contents)) == 7


def test_complete_is_left_and_incomplete_redrawn(tmp_path):
    draw_dataset(tmp_path, 3, 2)
    before = digest(tmp_path)
    image = tmp_path / "train" / "images" / "train_00001.jpg"
    image.write_bytes(b"mine")
    draw_dataset(tmp_path, 3, 2)
    assert image.read_bytes() == b"mine"  # complete: nothing is touched
    (tmp_path / "complete.json").write_text('{"unfinished": {}}')  # as a crash leaves it
    (tmp_path / "train" / "images" / "train_00009.jpg").touch()
    (tmp_path / "train" / "images" / "holiday.jpg").touch()
    draw_dataset(tmp_path, 3, 2)
    after = digest(tmp_path)
    assert after.pop("train/images/holiday.jpg")  # not ours
    assert after == before
    draw_dataset(tmp_path, 2, 2)
    assert len(list((tmp_path / "train" / "labels").iterdir())) == 2


def test_pictures_of_somebody_else_are_left_alone(tmp_path):
    own = tmp_path / "train" / "images" / "train_00000.jpg"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    with pytest.raises(UserError, match="not drawn by this command.*--out"):
        draw_dataset(tmp_path, train=1, valid=1)
    assert own.read_bytes() == b"mine"


def test_scenes_are_valid():
    """Boxes are inside the image and of a size one can see; moving frames test their rims."""
    for seed in range(8):
        scene = draw_scene(Size(200, 170), np.random.default_rng(seed))
        assert scene.image.shape == (170, 200, 3) and scene.image.dtype == np.uint8
        assert 1 <= len(scene.boxes) <= 6 and len(scene.boxes) == len(scene.labels)
        sides = scene.boxes[:, 2:] - scene.boxes[:, :2]
        assert (sides >= 8).all() and (scene.boxes >= 0).all()
        assert (scene.boxes[:, 2] <= 200).all() and (scene.boxes[:, 3] <= 170).all()


def test_frames_move_with_their_boxes():
    frames = list(draw_frames(40, Size(128, 96), objects=1, seed=3))
    assert len(frames) == 40 and {frame.image.shape for frame in frames} == {(96, 128, 3)}
    again = list(draw_frames(40, Size(128, 96), objects=1, seed=3))
    assert all((a.image == b.image).all() for a, b in zip(frames, again))
    changes = 0
    for before, after in zip(frames, frames[1:]):
        assert (before.labels == after.labels).all()
        rows, columns = np.nonzero((before.image != after.image).any(axis=2))
        low = np.minimum(before.boxes[0], after.boxes[0])[:2]
        high = np.maximum(before.boxes[0], after.boxes[0])[2:]
        # All that changes is inside the two boxes, and reaches to their rims.
        assert columns.min() >= low[0] and rows.min() >= low[1]
        assert columns.max() < high[0] and rows.max() < high[1]
        changes += int((before.boxes != after.boxes).any())
    assert changes > 30
    drift = np.ptp([frame.boxes[0, 0] for frame in frames])
    assert drift > 10
