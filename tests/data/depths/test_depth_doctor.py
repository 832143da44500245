"""The full examination of depths."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from src.core.structures import Size
from src.data.common.images import read_image, write_image
from src.data.depths.doctor import examine_depths
from src.data.depths.reader import read_depth_split, write_depth
from src.data.depths.settings import DepthDataset
from src.data.drawn.depths import draw_depth_dataset
from tests.data.labels.test_label_doctor import kinds, run

KEYS = {
    f"{split}_{kind}".upper(): f"{split}/{kind}"
    for split in ("train", "valid")
    for kind in ("images", "depths")
}


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    return draw_depth_dataset(tmp_path / "rooms", 7, 1, size=Size(32, 24))


def examine(root: Path, **more: object):
    dataset = DepthDataset(DATA_ROOT=root, **KEYS, **more)
    found = {split: read_depth_split(dataset, split) for split in ("train", "valid")}
    return examine_depths(found, dataset, workers=2)


def test_good_depths_and_their_figures(tmp_path: Path) -> None:
    """Half the pixels at 2 m, a quarter at 4 m, a quarter not measured."""
    depth = np.full((8, 12), 2.0)
    depth[:2], depth[2:4] = 0, 4
    rng = np.random.default_rng(0)
    for split in ("train", "valid"):
        for stem in "ab":
            image = rng.integers(0, 255, (8, 12, 3), dtype=np.uint8)
            write_image(tmp_path / split / "images" / f"{stem}.png", image)
            depth[-1, -1] += 0.001  # no two files alike
            (tmp_path / split / "depths").mkdir(exist_ok=True)
            write_depth(tmp_path / split / "depths" / f"{stem}.png", depth)
    report = examine(tmp_path)
    assert report.text().startswith("no faults")
    figures = report.as_dict()["train"]["depth"]
    assert figures["measured, % of pixels"] == figures["measured, % in the least pair"] == 75
    assert figures["nearest (m)"] == 2 and figures["farthest (m)"] == 4
    assert figures["50 % below (m)"] == pytest.approx(2, abs=2e-3)
    assert figures["mean (m)"] == pytest.approx(8 / 3, abs=1e-3)
    assert "12x8" in report.text()


def test_every_fault_is_told(rooms: Path) -> None:
    images, depths = rooms / "train" / "images", rooms / "train" / "depths"
    stems = sorted(path.stem for path in depths.iterdir())
    image_of = {path.stem: path for path in images.iterdir()}
    assert len(stems) == 7
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(depths / f"{stems[0]}.png")
    write_depth(depths / f"{stems[1]}.png", np.ones((9, 9)))
    image_of[stems[2]].write_bytes(b"no picture")
    (depths / f"{stems[3]}.png").unlink()
    write_depth(depths / f"{stems[4]}.png", np.zeros((24, 32)))
    (depths / f"{stems[5]}.png").write_bytes((depths / f"{stems[6]}.png").read_bytes())
    valid = next((rooms / "valid" / "images").iterdir())
    write_image(valid, read_image(image_of[stems[6]]))
    report = examine(rooms)
    assert kinds(report.splits["train"].faults) == [
        ("bad depth", "error"),
        ("bad depth", "error"),
        ("image without depth", "error"),
        ("nothing measured", "warning"),
        ("repeated depth", "warning"),
        ("unreadable image", "error"),
    ]
    assert report.errors == 4
    # The picture is written as it was stored: a JPEG differs by its compression.
    expected = [("duplicate of train", "warning")] if valid.suffix == ".png" else []
    assert kinds(report.splits["valid"].faults) == expected


def test_a_wrong_scale_is_told(rooms: Path) -> None:
    faults = examine(rooms, DEPTH_SCALE=1).splits["train"].faults
    beyond = [fault for fault in faults if fault.kind == "depth beyond the range"]
    assert len(beyond) == 7 and "DEPTH_SCALE (1.0)" in beyond[0].detail
    assert [fault.severity for fault in faults if fault.kind == "empty"] == ["error"]
    assert not examine(rooms).errors and not examine(rooms).splits["train"].faults


def test_one_value_and_little_measured(tmp_path: Path, rooms: Path) -> None:
    depths = rooms / "train" / "depths"
    first, second = sorted(depths.iterdir())[:2]
    write_depth(first, np.full((24, 32), 3.0))
    little = np.zeros((24, 32))
    little[0, :3] = 2, 3, 4
    write_depth(second, little)
    found = {fault.kind: fault.detail for fault in examine(rooms).splits["train"].faults}
    assert set(found) == {"depth of one value", "little measured"}
    assert "3.000 m" in found["depth of one value"] and "0.39 %" in found["little measured"]


def test_the_command(tmp_path: Path, rooms: Path, monkeypatch) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"DATA_ROOT": str(rooms), **KEYS}))
    out = tmp_path / "out"
    words = ["--config", str(tmp_path / "c.yaml"), "--out-dir", str(out)]
    assert run(monkeypatch, *words) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["train"]["images"] == 7 and report["train"]["sizes"] == {"32x24": 7}
    assert 0 < report["valid"]["depth"]["nearest (m)"] < 10
    assert "farthest (m)" in (out / "report.txt").read_text()
    assert read_image(out / "samples_train.jpg").size
    wrong = ["--valid-depths", str(tmp_path / "nowhere")]
    assert run(monkeypatch, *words, *wrong) == 2
