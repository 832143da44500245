"""``infer_multi.py``: what the separate commands say, in one file and one picture."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from src.classification.infer import infer as infer_classifier
from src.classification.settings import InferClassifier
from src.core.cli import parse
from src.core.errors import UserError
from src.core.structures import Size
from src.data.common.images import read_image, write_image
from src.depth import infer as depth
from src.depth.settings import InferDepthImage, InferDepthVideo
from src.detection import infer as detection
from src.detection.settings import InferDetectionImage, InferDetectionVideo
from src.multi import InferMulti, infer_joint
from src.predict.video import VideoWriter
from src.segmentation import infer as segmentation
from src.segmentation.settings import InferSegmentationImage, InferSegmentationVideo
from tests.predict.heads import TASKS

LOW = ["--threshold", 0.02]  # two epochs of training: nothing is sure


def words(*given: object) -> list[str]:
    return [str(word) for word in given]


def multi(paths, *flags: object) -> int:
    models = [word for path in paths for word in ("--model", path)]
    return infer_joint(parse(InferMulti, words(*models, "--device", "cpu", *flags)))


def alone(settings, command, path: Path, *flags: object) -> None:
    assert command(parse(settings, words("--model", path, "--device", "cpu", *flags))) == 0


def read(path: Path):
    return json.loads(path.read_text())


def boxes_of(results: dict) -> list[list[float]]:
    return [[*one["box"], one["score"], one["label"]] for one in results["detection"]["detections"]]


def coco_boxes(folder: Path, prefix: str = "") -> dict[int, list[list[float]]]:
    found: dict[int, list[list[float]]] = {}
    for one in read(folder / f"{prefix}detections.json"):
        x, y, w, h = one["bbox"]
        box = [x, y, round(x + w, 2), round(y + h, 2), one["score"], one["category_id"]]
        found.setdefault(one["image_id"], []).append(box)
    return found


def test_pictures_as_by_the_separate_commands(trained, tmp_path):
    root, _, paths = trained
    images = ["--input", root / "valid" / "images"]
    assert multi(paths.values(), *images, *LOW, "--out-dir", tmp_path / "all", "--save-arrays") == 0
    content = read(tmp_path / "all" / "multi.json")
    assert [one["task"] for one in content["models"]] == list(TASKS)
    where = ["--out-dir", tmp_path / "alone", *images]
    alone(InferDetectionImage, detection.infer_images, paths["detection"], *where, *LOW)
    alone(InferSegmentationImage, segmentation.infer_images, paths["segmentation"], *where)
    alone(InferDepthImage, depth.infer_images, paths["depth"], *where)
    alone(InferClassifier, infer_classifier, paths["classification"], *where)
    found = coco_boxes(tmp_path / "alone")
    assert sum(map(len, found.values())) > 3
    files = ("segments.json", "depths.json", "classes.json")
    shares, metres, classes = (read(tmp_path / "alone" / name)["images"] for name in files)
    for row, entry in enumerate(content["images"]):
        results = entry["results"]
        ours, theirs = boxes_of(results), found.get(entry["id"], [])
        np.testing.assert_allclose(ours, theirs, atol=0.011)  # x + w is rounded twice in COCO's
        assert results["segmentation"]["shares"] == shares[row]["shares"]
        assert results["depth"]["median"] == metres[row]["median"]
        assert results["classification"]["top"] == classes[row]["top"]
        mask = np.load(tmp_path / "all" / entry["arrays"]["segmentation"])["mask"]
        written = cv2.imread(str(tmp_path / "alone" / shares[row]["mask"]), cv2.IMREAD_GRAYSCALE)
        assert np.array_equal(mask, written)
        picture = read_image(tmp_path / "all" / entry["output"])
        assert picture.shape[1] == 2 * entry["width"]  # beside it its depth


def test_layers_can_be_switched(trained, tmp_path):
    root, _, paths = trained
    image = root / "valid" / "images" / "0.png"
    pictures = {}
    for layers in ("none", "segmentation", "detection"):
        out = tmp_path / layers
        flags = ["--input", image, "--layers", layers, *LOW, "--out-dir", out]
        assert multi([paths["detection"], paths["segmentation"]], *flags) == 0
        assert set(read(out / "multi.json")["images"][0]["results"]) == {
            "detection",
            "segmentation",
        }
        pictures[layers] = read_image(out / "0.png")
    assert np.array_equal(pictures["none"], read_image(image))
    drawn = list(pictures.values())
    assert not any(np.array_equal(a, b) for a, b in zip(drawn, drawn[1:]))


def test_a_video_as_by_the_separate_commands(trained, tmp_path):
    root, _, paths = trained
    writer = VideoWriter(tmp_path / "a.mp4", Size(64, 48), Fraction(10))
    for number in range(6):
        image = np.full((48, 64, 3), 40, np.uint8)
        cv2.rectangle(image, (5 + 3 * number, 10), (25 + 3 * number, 30), (220, 200, 180), -1)
        writer.write(image)
    writer.close()
    video = ["--input", tmp_path / "a.mp4"]
    out = tmp_path / "all"
    assert multi(paths.values(), *video, *LOW, "--out-dir", out) == 0
    frames = read(out / "a_multi.json")["images"]
    where = ["--out-dir", tmp_path / "alone", *video]
    alone(InferDetectionVideo, detection.infer_video, paths["detection"], *where, *LOW)
    alone(InferSegmentationVideo, segmentation.infer_video, paths["segmentation"], *where)
    alone(InferDepthVideo, depth.infer_video, paths["depth"], *where)
    found = coco_boxes(tmp_path / "alone", "a_")
    shares = read(tmp_path / "alone" / "a_segments.json")["images"]
    metres = read(tmp_path / "alone" / "a_depths.json")["images"]
    assert len(frames) == 6 and sum(map(len, found.values())) > 5
    for number, frame in enumerate(frames):
        assert frame["frame"] == number
        results = frame["results"]
        np.testing.assert_allclose(boxes_of(results), found.get(number, []), atol=0.011)
        assert results["segmentation"]["shares"] == shares[number]["shares"]
        assert results["depth"]["median"] == metres[number]["median"]
    # A video is as large as what is drawn: the picture beside its depth, not squeezed into one.
    for name in ("all", "alone"):
        capture = cv2.VideoCapture(str(tmp_path / name / "a.mp4"))
        assert capture.get(cv2.CAP_PROP_FRAME_WIDTH) == 128


def test_what_is_refused(trained, tmp_path):
    root, _, paths = trained
    image = ["--input", root / "valid" / "images" / "0.png", "--out-dir", tmp_path]
    both = [paths["detection"], paths["depth"]]
    for flags, message in (
        (["--flip"], "--flip looks at each image mirrored, too"),
        (["--tiles", 2], "--tiles looks"),
        (["--scales", 1, 2], "--scales looks"),
        (["--top", 3], "unknown argument: --top"),
        (["--opacity", 0.3], "--opacity: none of the models .detection, depth."),
        (["--layers", "boxes"], "--layers boxes: there are detection, depth"),
        (["--resize", "crop"], "cuts off the borders"),
        (["--max-frames", 3], "--max-frames is of a video"),
    ):
        with pytest.raises(UserError, match=message):
            multi(both, *image, *flags)
    with pytest.raises(UserError, match="named twice"):
        multi([both[0], both[0]], *image)
    write_image(tmp_path / "b.png", np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(UserError, match="give one video, or images alone"):
        multi(both, "--input", tmp_path / "b.png", "a.mp4", "--out-dir", tmp_path)
