"""Pseudo-labels: what is sure enough is written so that the training commands read it."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

from src.backbones.build import build_backbone
from src.classification.settings import TrainClassifier
from src.classification.train import train as train_classifier
from src.core import cli
from src.core.errors import UserError
from src.data.boxes.reader import read_split
from src.data.common.images import read_image
from src.data.labels.reader import read_labels
from src.data.labels.settings import LabelDataset
from src.data.masks.reader import IGNORE, read_mask_split, split_folders, write_mask
from src.detection.results import DetectionResult
from src.detection.settings import TrainDetection
from src.pretraining.settings import PseudoOptions
from src.pseudo import Thresholds, pseudo, write_boxes
from src.segmentation.settings import TrainSegmentation
from src.segmentation.train import train as train_segmentation
from tests.pretraining.conftest import textures  # noqa: F401 - a fixture


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "weights.pth"
    hub_model = build_backbone("dinov3_vitt16", weights="none", hub="bundled").hub_model
    torch.save(hub_model.official_state(), file)
    return file


def options(images, out, *more) -> PseudoOptions:
    words = ["--images", str(images), "--out-dir", str(out), "--device", "cpu", *map(str, more)]
    return cli.parse(PseudoOptions, words, "pseudo")


def test_labels_of_the_nearest_are_read_by_the_classifier(textures, weights, tmp_path):  # noqa: F811
    knn = ["--labels", textures, "--model-name", "dinov3_vitt16", "--weights", weights]
    knn += ["--imgsz", 32, "--k", 1]
    folder = pseudo(options(textures, tmp_path / "all", *knn))
    flags = {"train": folder / "labels.csv", "valid": textures}
    data = read_labels(LabelDataset(), flags=flags)
    assert len(data.records["train"]) == 24, "each image is its own nearest"
    for record in data.records["train"]:
        assert data.names[record.labels[0]] == record.image.parent.name
    half = pseudo(options(textures, tmp_path / "half", *knn, "--keep", 0.5))
    with (half / "labels.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 12


def test_a_trained_head_and_thresholds_by_class(textures, weights, tmp_path):  # noqa: F811
    words = ["--train-dir", textures, "--valid-dir", textures, "--head", "knn", "--imgsz", 32]
    words += ["--model-name", "dinov3_vitt16", "--weights", weights, "--hub", "bundled"]
    words += ["--out-dir", tmp_path / "run", "--workers", 0, "--skip-check"]
    train_classifier(cli.parse(TrainClassifier, [str(word) for word in words]))
    model = tmp_path / "run" / "best_model.pth"
    own = tmp_path / "thresholds.yaml"
    own.write_text("coarse: 1.1\n")
    words = ["--model", model, "--threshold", 0.01]
    folder = pseudo(options(textures, tmp_path / "a", *words, "--thresholds", own))
    with (folder / "labels.csv").open() as file:
        found = {row["label"] for row in csv.DictReader(file)}
    assert found and "coarse" not in found
    own.write_text("corse: 0.5\n")
    with pytest.raises(UserError, match="no class 'corse'.*coarse"):
        pseudo(options(textures, tmp_path / "b", *words, "--thresholds", own))
    with pytest.raises(UserError, match="nothing in 24 images is as sure"):
        pseudo(options(textures, tmp_path / "c", "--model", model, "--threshold", 1))


def test_boxes_are_read_by_the_detector(textures, tmp_path):  # noqa: F811
    names = ["__background__", "cat", "dog"]
    paths = sorted(textures.rglob("*.png"))[:2]
    boxes = np.array([[1, 2, 20, 30], [5, 5, 9, 9]], np.float32)
    first = (boxes, np.array([0.9, 0.3], np.float32), np.array([1, 2]))
    second = (boxes[:1], np.array([0.4], np.float32), np.array([1]))
    results = [
        (path, DetectionResult(read_image(path), names, *found))
        for path, found in zip(paths, (first, second))
    ]
    own = tmp_path / "thresholds.yaml"
    own.write_text("dog: 0.2\ncat: 0.5\n")
    chosen = options(textures, tmp_path, "--model", "x.pth", "--thresholds", own)
    folder = write_boxes(tmp_path, names, iter(results), chosen)
    settings = cli.parse(TrainDetection, ["--config", str(folder / "data.yaml")])
    records, faults = read_split(settings.dataset, "train")
    assert not [fault for fault in faults if fault.severity == "error"]
    assert [record.image for record in records] == [paths[0].resolve()]
    np.testing.assert_allclose(records[0].boxes, boxes)
    assert records[0].labels.tolist() == [1, 2]


def test_masks_are_read_by_the_segmenter(textures, weights, tmp_path):  # noqa: F811
    images = textures / "fine"
    for path in images.glob("*.png"):
        write_mask(tmp_path / "masks" / path.name, np.indices((48, 48))[1] // 24)
    yaml = tmp_path / "data.yaml"
    yaml.write_text(
        f"DATA_ROOT: /\nTRAIN_IMAGES: {images}\nTRAIN_MASKS: {tmp_path}/masks\n"
        f"VALID_IMAGES: {images}\nVALID_MASKS: {tmp_path}/masks\nALL_CLASSES: [left, right]\n"
    )
    words = ["--config", yaml, "--model-name", "dinov3_vitt16", "--weights", weights]
    words += ["--hub", "bundled", "--imgsz", 48, "--epochs", 1, "--batch", 8, "--workers", 0]
    words += ["--skip-check", "--out-dir", tmp_path / "run", "--head", "linear"]
    train_segmentation(cli.parse(TrainSegmentation, [str(word) for word in words]))
    model = tmp_path / "run" / "best_model.pth"
    folder = pseudo(options(images, tmp_path / "out", "--model", model, "--threshold", 0.5))
    settings = cli.parse(TrainSegmentation, ["--config", str(folder / "data.yaml")])
    records, _ = read_mask_split(settings.dataset, split_folders(settings.dataset, "train"))
    assert len(records) == 8
    values = np.concatenate([read_image(record.mask)[..., 0].ravel() for record in records])
    assert set(np.unique(values)) <= {0, 1, IGNORE} and (values != IGNORE).any()


def test_thresholds_are_those_of_the_classes(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("b: 0.9\n")
    chosen = options("x", tmp_path, "--model", "x.pth", "--threshold", 0.4, "--thresholds", own)
    thresholds = Thresholds(chosen, ["a", "b"])
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.3, 0.5, 0.8, 0.95], np.float32)
    assert thresholds.keeps(labels, scores).tolist() == [False, True, False, True]
