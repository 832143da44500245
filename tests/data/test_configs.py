"""Every dataset YAML of the project is valid, and says what the tutorial's did."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.core.cli import parse
from src.data.boxes.settings import BoxDataset, CheckBoxes

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "detection_configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_valid(path):
    dataset = parse(CheckBoxes, ["--config", str(path)]).dataset
    assert isinstance(dataset, BoxDataset) and dataset.names[0] == "__background__"
    assert not dataset.DATA_ROOT.is_absolute()


@pytest.mark.parametrize(("name", "classes"), [("voc", 20), ("voc_devkit", 20), ("coco", 80)])
def test_number_of_classes(name, classes):
    path = next(path for path in CONFIGS if path.stem == name)
    assert len(parse(CheckBoxes, ["--config", str(path)]).dataset.names) == classes + 1


def test_bccd_is_read_with_data_root(shared):
    from src.data.boxes.reader import read_split

    path = next(path for path in CONFIGS if path.stem == "bccd")
    options = parse(
        CheckBoxes, ["--config", str(path), "--data-root", str(shared / "data" / "bccd")]
    )
    assert len(read_split(options.dataset, "train", options.data_root)[0]) == 292
