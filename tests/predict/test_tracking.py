"""``--track`` and ``--every``: ids that stay, boxes that move on; the truth is known."""

from __future__ import annotations

import csv
import json
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks.tracking import detect, drawn_scene, scores, track
from src.core.cli import parse
from src.core.errors import UserError
from src.core.structures import Size
from src.detection import infer
from src.detection.results import DetectionResult
from src.detection.settings import InferDetectionVideo
from src.multi import InferMulti, infer_joint
from src.predict.results import DetectionReport
from src.predict.tracking import BoxTracker, floor_of
from src.predict.video import VideoWriter, report_video
from src.visualise.draw import draw_detections
from tests.predict.helpers import BLUE, NAMES, RED, predictor

SIZE = Size(96, 64)


def found(*boxes: tuple[float, float, float, float, float]) -> dict[str, torch.Tensor]:
    """x1, y1, x2, y2, score each."""
    table = torch.tensor(boxes).reshape(-1, 5)
    labels = torch.ones(len(table), dtype=torch.int64)
    return {"boxes": table[:, :4], "scores": table[:, 4], "labels": labels}


def moving(number: int, score: float = 0.9) -> tuple[float, float, float, float, float]:
    return (1.0 * number, 20.0, 1.0 * number + 24, 44.0, score)


def test_figures_on_a_drawn_scene():
    """Low boxes bring ids through where objects hide each other; key frames cost some."""
    truth = drawn_scene(0)
    seen = detect(truth, 100)
    whole, alone = scores(truth, track(seen)), scores(truth, track(seen, low=False))
    assert whole["HOTA"] > 75 and whole["IDF1"] > 85 and whole["switches"] <= 8
    assert alone["IDF1"] < whole["IDF1"] - 2
    assert 60 < scores(truth, track(seen, every=3))["IDF1"] < whole["IDF1"]


def test_an_object_that_the_detector_is_unsure_of_keeps_its_id():
    tracker = BoxTracker(0.5)
    assert floor_of(0.5) == 0.1 and floor_of(0.1) == 0.05
    ids = []
    for number in range(8):
        score = 0.2 if number in (4, 5) else 0.9
        answer = tracker.update(found(moving(number, score), (60, 0, 70, 10, 0.2)), number / 30)
        assert len(answer["ids"]) == 1  # what nobody was sure of is not reported
        ids += answer["ids"].tolist()
    assert ids == [0, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("every", [3, 10])
def test_between_key_frames_boxes_move_and_new_objects_stay(every):
    """An object that is new at a key frame has its id at the next: frames between end nothing."""
    tracker = BoxTracker(0.25)
    for number in range(6 * every + 1):
        shown = found(moving(number)) if number % every == 0 else None
        answer = tracker.follow(shown, number / 30, Size(640, 64))
        assert answer["ids"].tolist() == [int(number >= every)]
        if number > 4 * every:
            expected = torch.tensor([moving(number)[:4]])
            torch.testing.assert_close(answer["boxes"], expected, atol=1.5, rtol=0)


def test_a_video_from_end_to_end(tmp_path: Path):
    """Two squares that pass each other; every third frame is looked at."""
    writer = VideoWriter(tmp_path / "a.mp4", SIZE, Fraction(30))
    for number in range(24):
        image = np.full((64, 96, 3), 20, np.uint8)
        for left, top, colour in ((2 * number, 4, RED), (70 - 2 * number, 36, BLUE)):
            image[top : top + 20, left : left + 20] = colour
        writer.write(image)
    writer.close()
    model = predictor(size=SIZE)
    report = DetectionReport(draw_detections, NAMES, 0.5, tracker=BoxTracker(0.5))
    out = tmp_path / "out"
    assert report_video(model, str(tmp_path / "a.mp4"), out, report, every=3, batch=3) == 0
    assert model.model.batches == [1] * 8
    rows = json.loads((out / "a_detections.json").read_text())
    assert len(rows) == 48
    for row in rows:
        number, first = row["image_id"], row["category_id"] == 1
        assert bool(row["track_id"]) == (number >= 3)
        if number >= 12:
            left, top = (2 * number, 4) if first else (70 - 2 * number, 36)
            assert row["bbox"] == pytest.approx([left, top, 20, 20], abs=3)
    ids = {(row["category_id"], row["track_id"]) for row in rows if row["image_id"] >= 3}
    assert len(ids) == 2 and {name for _, name in ids} == {1, 2}
    with (out / "a_detections.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["track_id"] for row in table] == [str(row["track_id"]) for row in rows]


def test_commands_say_ids(trained, tmp_path):
    root, _, paths = trained
    writer = VideoWriter(tmp_path / "a.mp4", Size(64, 48), Fraction(30))
    for number in range(7):
        image = np.full((48, 64, 3), 30, np.uint8)
        cv2.rectangle(image, (5 + number, 10), (21 + number, 22), (210, 210, 210), -1)
        writer.write(image)
    writer.close()
    video = ["--input", tmp_path / "a.mp4", "--device", "cpu", "--threshold", 0.02, "--track"]
    words = ["--model", paths["detection"], "--out-dir", tmp_path / "one", *video]
    options = parse(InferDetectionVideo, [str(word) for word in words])
    assert infer.infer_video(options) == 0
    rows = json.loads((tmp_path / "one" / "a_detections.json").read_text())
    assert any(row["track_id"] for row in rows)
    words = ["--model", paths["detection"], paths["depth"], "--out-dir", tmp_path / "two", *video]
    assert infer_joint(parse(InferMulti, [str(word) for word in words])) == 0
    frames = json.loads((tmp_path / "two" / "a_multi.json").read_text())["images"]
    ours = [one["track_id"] for f in frames for one in f["results"]["detection"]["detections"]]
    assert ours == [row["track_id"] for row in rows]
    words[-1:] = ["--track", "--every", 3]
    assert infer_joint(parse(InferMulti, [str(word) for word in words])) == 0
    held = json.loads((tmp_path / "two" / "a_multi.json").read_text())["images"]
    medians = [frame["results"]["depth"]["median"] for frame in held]
    assert len(held) == 7 and medians[0] == medians[1] == medians[2] != medians[3]


def test_what_is_refused(trained, tmp_path):
    root, _, paths = trained
    image = str(root / "valid" / "images" / "0.png")
    given = ["--model", str(paths["detection"]), "--device", "cpu", "--out-dir", str(tmp_path)]
    with pytest.raises(UserError, match="--every needs --track"):
        parse(InferDetectionVideo, [*given, "--input", "a.mp4", "--every", "2"])
    with pytest.raises(UserError, match="--track is of a video"):
        infer_joint(parse(InferMulti, [*given, "--input", image, "--track"]))
    with pytest.raises(UserError, match="--every needs --track"):
        infer_joint(parse(InferMulti, [*given, "--input", "a.mp4", "--every", "2"]))


def test_supervision_gets_the_ids():
    boxes = np.array([[0, 0, 4, 4], [5, 5, 9, 9]], np.float32)
    values = (boxes, np.array([0.9, 0.8], np.float32), np.array([1, 1]), np.array([3, 0]))
    result = DetectionResult(np.zeros((10, 10, 3), np.uint8), ["__background__", "a"], *values)
    assert result.to_supervision().tracker_id.tolist() == [3, -1]
    assert [one["track_id"] for one in result.to_dict()["detections"]] == [3, 0]


def test_there_is_one_opencv():
    """trackers asks for the GUI wheel, which shares a folder with the headless one."""
    distribution("trackers")
    distribution("opencv-python-headless")
    with pytest.raises(PackageNotFoundError):
        distribution("opencv-python")
