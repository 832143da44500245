"""DEIMv2's weights under our names answer what the authors' code does; then the same by hub:NAME:
found, predicted with, trained from."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torchvision.ops import box_convert

import src as dino_stack
from src.core.cli import parse
from src.core.errors import UserError
from src.data.drawn.boxes import draw_dataset
from src.detection.model import build_detector
from src.detection.restore import restore_detector
from src.detection.settings import TrainDetection
from src.detection.train import train
from src.engine.initial import start_from
from src.models.deimv2 import ROWS, convert
from tests.conftest import PROJECT
from tests.models.official_deimv2 import BACKBONES, SIDE, answer, build
from tests.models.procedural import clone_of, fill, filled, load_reference, picture

pytest.importorskip("transformers")
SHAPES, ANSWERS = load_reference("deimv2.npz")
HUB = "hub:deimv2_dinov3_s_coco"


def weights_of(size: str) -> dict[str, torch.Tensor]:
    """The weights of the reference, under the authors' names; what they hold beside is plain."""
    drawn = {}
    for name, value in SHAPES[size].items():
        if name.endswith(("anchors", "valid_mask", "periods")):
            continue  # recomputed
        if name.endswith("num_batches_tracked"):
            drawn[name] = torch.tensor(0)
            continue
        drawn[name] = fill(name, tuple(value.shape))
        if name.endswith("bias_mask"):
            drawn |= filled({name: torch.ones(value.shape)})
        elif name.endswith(("up", "reg_scale")):
            drawn[name] = torch.tensor([0.5 if name.endswith("up") else 4.0])
        elif name.endswith("num_points_scale"):
            drawn[name] = torch.tensor([1 / n for n in (3, 6, 3) for _ in range(n)])
    return drawn


def ours(size: str) -> torch.nn.Module:
    model = build_detector(
        BACKBONES[size], 81, head="deimv2", hub="bundled", deimv2_size=size
    ).eval()
    state = model.backbone.adapt_state_dict(convert(weights_of(size)), "backbone.")
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("size", BACKBONES)
def test_every_size_has_the_authors_names_and_shapes(size):
    """All weights of a size, as the authors' YAML builds it, and nothing but them."""
    with torch.device("meta"):
        model = build_detector(BACKBONES[size], 81, head="deimv2", hub="bundled", deimv2_size=size)
    converted = model.backbone.adapt_state_dict(convert(SHAPES[size]), "backbone.")
    own = model.state_dict()
    assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in own.items()}
    row = next(row for row in ROWS if row.settings["deimv2_size"] == size)
    assert row.backbone == BACKBONES[size]


def assert_same(found, scores, boxes, labels) -> None:
    """Each of the authors' boxes is among ours: class, score to 1e-4, place to 0.01 pixels."""
    pixels = (box_convert(torch.as_tensor(boxes), "cxcywh", "xyxy") * SIDE).clamp(0, SIDE)
    for score, box, label in zip(scores, pixels, labels):
        near = (found["scores"] - float(score)).abs() < 1e-4
        near &= (found["boxes"] - box).abs().max(dim=1).values < 1e-2
        near &= found["labels"] == int(label) + 1
        assert near.any(), (score, box, label)


@pytest.mark.parametrize("size", ["s", pytest.param("l", marks=pytest.mark.slow)])
def test_the_authors_numbers(size):
    with torch.inference_mode():
        [found] = ours(size)([picture(SIDE, SIDE)])
    assert_same(found, *(ANSWERS[f"{size}/{part}"] for part in ("scores", "boxes", "labels")))
    assert np.ptp(ANSWERS[f"{size}/scores"]) > 1e-3  # they differ, so the order means something


@pytest.mark.parametrize("size", [*BACKBONES])
def test_the_clone_says_the_same(size):
    """With the authors' code at hand: the names are today's, and S's numbers too."""
    clone = clone_of("DEIMV2_REPO", "DEIMv2")
    if clone is None:
        pytest.skip("no clone of Intellindust-AI-Lab/DEIMv2: set DEIMV2_REPO in .env")
    model = build(clone, size)
    state = filled(model.state_dict())
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in SHAPES[size].items()}
    if size == "s":
        model.load_state_dict(state)
        logits, boxes = answer(model, picture(SIDE, SIDE))
        values, labels = logits.sigmoid().max(dim=1)
        best = values.argsort(descending=True)[:20]
        with torch.inference_mode():
            [found] = ours(size)([picture(SIDE, SIDE)])
        assert_same(found, values[best], boxes[best], labels[best])


@pytest.fixture
def published(tmp_path, monkeypatch):
    """The weights folder, with the file of DEIMv2-S as it is published there."""
    monkeypatch.setenv("DINOv3_WEIGHTS", str(tmp_path))
    (tmp_path / "hub").mkdir()
    file = tmp_path / "hub" / "deimv2_dinov3_s_coco.safetensors"
    save_file(weights_of("s"), file)
    return file


def test_by_name(published):
    model = dino_stack.load(HUB, imgsz=[SIDE, SIDE], threshold=0.0)
    assert len(model.names) == 81 and model.names[1] == "person"
    found = model.predict(picture(SIDE, SIDE))
    assert len(found.scores) == 100
    best = ANSWERS["s/scores"][:10]
    assert all(np.abs(found.scores - score).min() < 1e-4 for score in best)
    trained = restore_detector(HUB)
    assert trained.image_size == (640, 640) and trained.resize == "stretch"


def test_training_starts_from_it(published, tmp_path):
    data = draw_dataset(tmp_path / "data", train=4, valid=2)
    content = yaml.safe_load((PROJECT / "detection_configs/demo.yaml").read_text())
    del content["TRAIN"]  # it names another backbone
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    words = ["--config", tmp_path / "own.yaml", "--data-root", data, "--init", HUB]
    words += ["--imgsz", 64, 64, "--batch", 2, "--epochs", 1, "--workers", 0, "--augment", "none"]
    words += ["--out-dir", tmp_path / "run", "--skip-check"]
    options = parse(TrainDetection, [str(word) for word in words], "train_detection.py")
    train(options)
    [row] = csv.DictReader((tmp_path / "run" / "history.csv").open())
    assert float(row["loss"]) > 0
    trained = restore_detector(tmp_path / "run" / "best_model.pth")
    assert trained.checkpoint["config"]["deimv2_size"] == "s"
    assert trained.checkpoint["backbone"]["name"] == "deimv2_vitt16"


def test_class_rows_go_by_name(published, caplog):
    caplog.set_level("INFO")
    model = build_detector("deimv2_vitt16", 3, head="deimv2", hub="bundled", deimv2_size="s")
    start_from(model, HUB, ["__background__", "dog", "unicorn"])
    theirs = weights_of("s")["decoder.dec_score_head.3.weight"]
    dog = dino_stack.load(HUB).names.index("dog") - 1
    assert torch.equal(model.head.class_embed[3].weight[0], theirs[dog])
    assert "rows of the classes: dog" in caplog.text
    assert "classes that start anew: unicorn" in caplog.text


def test_another_models_file(published):
    save_file({"encoder.something": torch.zeros(2)}, published)
    with pytest.raises(UserError, match="of another model.*encoder.something"):
        dino_stack.load(HUB)
    published.write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot be read.*delete it"):
        dino_stack.load(HUB)
    with pytest.raises(UserError, match="did you mean 'deimv2_dinov3_s_coco'"):
        dino_stack.load("hub:deimv2_dinov3_s_coc")
    with pytest.raises(UserError, match="a checkpoint of detection, and this is depth"):
        from src.depth.restore import restore_depther

        save_file(weights_of("s"), published)
        restore_depther(HUB)
