"""The package from Python: backbones, trained models of every task, training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import src as dino_stack
from src.core.errors import UserError
from src.data.common.images import read_image, write_image
from src.data.drawn.boxes import draw_dataset

PROJECT = Path(__file__).resolve().parents[1]
ATTO = "dinov3_convnext_atto"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """The demo's data set, small."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_dataset(folder, train=4, valid=2, seed=1)
    return folder


@pytest.fixture(scope="module")
def checkpoint(drawn, tmp_path_factory) -> Path:
    """The run folder of a detector, trained from Python with a callback."""
    seen = []
    history = dino_stack.train(
        "detection",
        config=PROJECT / "detection_configs/demo.yaml",
        callback=lambda history: seen.append(history.last["epoch"]),
        data_root=drawn,
        model_name=ATTO,
        weights="none",
        imgsz=[96, 96],
        batch=2,
        workers=0,
        epochs=1,
        out_dir=tmp_path_factory.mktemp("run"),
        overwrite=True,
    )
    assert seen == [1] and len(history.rows) == 1
    return history.run_dir


def test_import_is_light():
    code = "import sys, src; assert not {'torch', 'numpy', 'cv2'} & set(sys.modules); src.load"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dino_stack.nothing  # noqa: B018


def test_features_of_images_however_they_are_given(drawn):
    backbone = dino_stack.backbone(ATTO, "none", device="cpu")
    path = next((drawn / "train" / "images").iterdir())
    array = read_image(path)
    given = [path, array, Image.fromarray(array), torch.from_numpy(array).permute(2, 0, 1)]
    features = backbone.features(given, imgsz=64)
    assert features.cls.shape == (4, 320) and features.patches.shape == (4, 320, 2, 2)
    assert all(torch.equal(row, features.cls[0]) for row in features.cls)
    assert backbone.features(path, imgsz=64).cls.shape == (1, 320)
    assert len(backbone.features(drawn / "train" / "images", imgsz=32, batch=3).cls) == 4
    with pytest.raises(UserError, match="different sizes"):
        backbone.features([array, array[:20]], imgsz=64, mode="fit")


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), torch.zeros(3, 4, 4), 7, "nowhere.jpg"],
    ids=["float", "channels", "tensor", "number", "path"],
)
def test_what_is_no_image_is_told(wrong):
    with pytest.raises(UserError, match="uint8|no image|no such file"):
        dino_stack.backbone(ATTO, "none", device="cpu").features(wrong)


def test_a_detector(checkpoint, drawn, tmp_path):
    model = dino_stack.load(checkpoint, device="cpu", threshold=0.0)
    assert model.task == "detection" and model.names[0] == "__background__"
    images = sorted((drawn / "valid" / "images").iterdir())
    results = model.predict([read_image(path) for path in images])
    single = model.predict(images[0])
    assert len(results) == 2 and len(model.predict(drawn / "valid" / "images")) == 2
    np.testing.assert_allclose(single.boxes, results[0].boxes, atol=1e-3)
    assert len(single) == len(single.scores) == len(single.labels) > 0
    assert (np.diff(single.scores) <= 0).all()
    assert single.plot().size == Image.open(images[0]).size
    assert single._repr_png_()[:4] == b"\x89PNG"
    for name in ("out.jpg", "out.json", "out.npz"):
        assert single.save(tmp_path / name).stat().st_size > 0
    said = json.loads((tmp_path / "out.json").read_text())
    assert said == single.to_dict() and len(said["detections"]) == len(single)
    with pytest.raises(UserError, match=r"out\.txt"):
        single.save(tmp_path / "out.txt")


def test_options_of_load_are_checked(checkpoint, tmp_path):
    with pytest.raises(UserError, match=r"treshold: unknown key.*threshold"):
        dino_stack.load(checkpoint, treshold=0.5)
    with pytest.raises(UserError, match="no such"):
        dino_stack.load(tmp_path / "none.pth")
    with pytest.raises(UserError, match=r"unknown task 'detecton'.*detection"):
        dino_stack.train("detecton")


def test_supervision(checkpoint, drawn):
    supervision = pytest.importorskip("supervision")
    result = dino_stack.load(checkpoint, device="cpu", threshold=0.0).predict(
        next((drawn / "valid" / "images").iterdir())
    )
    found = result.to_supervision()
    assert isinstance(found, supervision.Detections) and len(found) == len(result)


def other_task(task: str, folder: Path, **options):
    """A run of one of the other tasks on a few noisy pictures."""
    generator = np.random.default_rng(0)
    for split in ("train", "valid"):
        for index in range(4):
            picture = generator.integers(0, 255, (64, 64, 3), np.uint8)
            kind = folder / split / ("images" if task == "segmentation" else f"class{index % 2}")
            kind.mkdir(parents=True, exist_ok=True)
            write_image(kind / f"{index}.png", picture)
            if task == "segmentation":
                masks = folder / split / "masks"
                masks.mkdir(exist_ok=True)
                Image.fromarray((picture[..., 0] > 127).astype(np.uint8)).save(
                    masks / f"{index}.png"
                )
    return dino_stack.train(
        task,
        model_name=ATTO,
        weights="none",
        imgsz=[64],
        batch=2,
        workers=0,
        epochs=1,
        out_dir=folder / "run",
        **options,
    ).run_dir


def test_a_classifier(tmp_path):
    run = other_task(
        "classification", tmp_path, train_dir=tmp_path / "train", valid_dir=tmp_path / "valid"
    )
    result = dino_stack.load(run, device="cpu").predict(tmp_path / "valid/class0/0.png")
    assert result.probabilities.shape == (2,) and result.names == ["class0", "class1"]
    assert [one["class"] for one in result.top()] == np.argsort(-result.probabilities).tolist()
    assert result.plot().size == (64, 64)


def test_a_segmenter(tmp_path):
    config = tmp_path / "two.yaml"
    config.write_text("ALL_CLASSES: [dark, light]\n")
    folders = {
        f"{split}_{kind}": tmp_path / split / kind
        for split in ("train", "valid")
        for kind in ("images", "masks")
    }
    run = other_task("segmentation", tmp_path, config=config, **folders)
    result = dino_stack.load(run, device="cpu").predict(tmp_path / "valid/images/0.png")
    assert result.mask.shape == (64, 64) and result.mask.max() <= 1
    assert sum(result.to_dict()["shares"].values()) == pytest.approx(1)
    with np.load(result.save(tmp_path / "mask.npz")) as arrays:
        assert (arrays["mask"] == result.mask).all()


def test_depth(tmp_path):
    from src.data.drawn.depths import draw_depth_dataset

    draw_depth_dataset(tmp_path / "rooms", 3, 1, seed=0)
    run = dino_stack.train(
        "depth",
        config=PROJECT / "depth_configs/demo.yaml",
        data_root=tmp_path / "rooms",
        model_name=ATTO,
        weights="none",
        imgsz=[64],
        batch=2,
        workers=0,
        epochs=1,
        out_dir=tmp_path / "run",
    ).run_dir
    picture = next((tmp_path / "rooms").joinpath("valid/images").iterdir())
    result = dino_stack.load(run, device="cpu").predict(picture)
    assert result.metres.shape == read_image(picture).shape[:2] and result.metres.min() > 0
    assert set(result.to_dict()) == {"width", "height", "least", "median", "most"}
    with pytest.raises(UserError, match="no counterpart"):
        result.to_supervision()
