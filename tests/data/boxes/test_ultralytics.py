"""A data.yaml of another tool as it is."""

from __future__ import annotations

import pytest

from src.core.cli import parse
from src.core.errors import UserError
from src.data.boxes.reader import read_split
from src.data.boxes.ultralytics import ultralytics
from src.data.common.images import write_image
from src.detection.settings import TrainDetection
from tests.data.helpers import picture

YAML = """path: set
train: images/train
val: images/val
nc: 2
names: {0: cat, 1: dog}
"""


def test_an_ultralytics_data_yaml_is_a_data_set(tmp_path):
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / "set" / kind / split).mkdir(parents=True)
        write_image(tmp_path / f"set/images/{split}/a.png", picture(40, 20))
        (tmp_path / f"set/labels/{split}/a.txt").write_text("1 0.5 0.5 0.5 1\n")
    (tmp_path / "data.yaml").write_text(YAML)
    dataset = parse(TrainDetection, ["--config", str(tmp_path / "data.yaml")]).dataset
    assert dataset.names == ["__background__", "cat", "dog"]
    for split in ("train", "valid"):
        (record,), faults = read_split(dataset, split)
        assert not faults and record.labels.tolist() == [2]
    exported = {"train": "../train/images", "val": "../valid/images", "names": ["cat"]}
    found = ultralytics(exported, tmp_path / "data.yaml")
    assert found["VALID_ANNOT"].as_posix() == "valid/labels"
    with pytest.raises(UserError, match="train is .*one folder of images"):
        ultralytics({"train": ["a", "b"], "names": ["cat"]}, tmp_path / "data.yaml")
