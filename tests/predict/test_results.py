"""Result files: COCO's layout, CSV, atomic."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from src.core.errors import UserError
from src.core.structures import Geometry, Size
from src.predict.results import DetectionReport, keep_above, rescale_detections
from src.visualise.draw import draw_detections

NAMES = ["__background__", "cat", "Hündin, gross"]


def detections(*rows):
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return {"boxes": table[:, :4], "scores": table[:, 4], "labels": table[:, 5].long()}


def filled() -> DetectionReport:
    report = DetectionReport(draw_detections, NAMES, 0.5)
    image = np.zeros((40, 60, 3), np.uint8)
    rows = ([1.25, 2, 11.5, 22, 0.9, 1], [5, 6, 25, 36, 0.5, 2], [0, 0, 9, 9, 0.49, 1])
    annotated = report.add(image, detections(*rows), {"id": 1, "file_name": "a b/ä.jpg"})
    assert annotated.any() and not image.any()
    assert not report.add(image, detections(), {"id": 2, "file_name": "none.jpg"}).any()
    return report


def test_rescale_divides_each_axis_by_its_own_scale_and_clips() -> None:
    given = detections([10, 10, 20, 30, 0.5, 1], [-4, 60, 90, 300, 0.4, 2])
    result = rescale_detections(given, Geometry(Size(200, 50), Size(100, 100)))
    assert result["boxes"].tolist() == [[20, 5, 40, 15], [0, 30, 180, 50]]
    assert given["boxes"][0].tolist() == [10, 10, 20, 30]
    assert rescale_detections(detections(), Geometry(Size(9, 9), Size(3, 3)))["boxes"].shape == (
        0,
        4,
    )


def test_keep_above_keeps_the_threshold_itself() -> None:
    kept = keep_above(detections([0, 0, 1, 1, 0.5, 1], [0, 0, 1, 1, 0.499, 2]), 0.5)
    assert kept["labels"].tolist() == [1]


def test_pycocotools_style_layout(tmp_path: Path) -> None:
    filled().write(tmp_path)
    results = json.loads((tmp_path / "detections.json").read_text())
    assert results == [
        {"image_id": 1, "category_id": 1, "bbox": [1.25, 2, 10.25, 20], "score": 0.9},
        {"image_id": 1, "category_id": 2, "bbox": [5, 6, 20, 30], "score": 0.5},
    ]
    images = json.loads((tmp_path / "images.json").read_text(encoding="utf-8"))
    assert images["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "Hündin, gross"}]
    first, second = images["images"]
    assert (first["id"], first["file_name"], first["width"], first["height"]) == (
        1,
        "a b/ä.jpg",
        60,
        40,
    )
    assert (first["detections"], second["detections"]) == (2, 0)


def test_coco_reads_both_files(tmp_path: Path) -> None:
    coco = pytest.importorskip("faster_coco_eval")
    filled().write(tmp_path)
    truth = coco.COCO(str(tmp_path / "images.json"))
    loaded = truth.loadRes(str(tmp_path / "detections.json"))
    assert sorted(loaded.getImgIds()) == [1, 2]
    assert [a["area"] for a in loaded.loadAnns(loaded.getAnnIds(imgIds=[1]))] == [205.0, 600.0]


def test_csv_has_names_and_corners(tmp_path: Path) -> None:
    filled().write(tmp_path)
    with open(tmp_path / "detections.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["category"] for row in rows] == ["cat", "Hündin, gross"]
    assert [float(rows[0][k]) for k in ("x1", "y1", "x2", "y2")] == [1.25, 2, 11.5, 22]
    assert rows[0]["file_name"] == "a b/ä.jpg"


def test_nothing_found_is_still_valid(tmp_path: Path) -> None:
    report = DetectionReport(draw_detections, NAMES, 0.5)
    report.write(tmp_path)
    assert json.loads((tmp_path / "detections.json").read_text()) == []
    assert json.loads((tmp_path / "images.json").read_text())["images"] == []
    assert len((tmp_path / "detections.csv").read_text().splitlines()) == 1
    assert len(list(tmp_path.iterdir())) == 3


def test_what_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "detections.json").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        filled().write(tmp_path)
