"""One mask, and the same thing in other pictures: drawn scenes, backbones of random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from src.core.errors import UserError
from src.data.common.images import write_image
from src.data.masks.reader import write_mask
from src.oneshot.__main__ import main
from src.oneshot.masks import read_mask
from src.oneshot.prototypes import build_prototypes, cells_of
from src.oneshot.refine import grabcut, refine_labels
from tests.oneshot.drawn import ellipse, scene

COMMON = ["--weights", "none", "--hub", "bundled", "--device", "cpu", "--imgsz", "320"]


def run(*words) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a > 0) & (b > 0)).sum() / ((a > 0) | (b > 0)).sum())


@pytest.fixture
def drawn(tmp_path):
    image, mask = scene(0)
    write_image(tmp_path / "r.png", image)
    write_mask(tmp_path / "m.png", mask)
    for seed in (1, 2, 3):
        write_image(tmp_path / "in" / f"{seed}.png", scene(seed)[0])
    return tmp_path


@pytest.mark.parametrize("refine", ["none", "grabcut"])
@pytest.mark.parametrize("name", ["dinov3_vitt16", "dinov3_convnext_atto"])
def test_iou_above_0_7(drawn, name, refine):
    words = ["--reference", drawn / "r.png", "--mask", drawn / "m.png", "--input", drawn / "in"]
    out = drawn / "out"
    model = ["--model-name", name, *COMMON, "--refine", refine]
    assert run(*words, *model, "--out-dir", out) == 0
    found = json.loads((out / "detections.json").read_text())
    images = json.loads((out / "images.json").read_text())["images"]
    for image in images:
        truth = scene(int(image["file_name"][0]))[1]
        labels = np.asarray(Image.open(out / image["mask"]))
        assert labels.shape == truth.shape and set(np.unique(labels)) == {0, 1}
        assert iou(labels, truth) > 0.7
        assert (out / f"{image['file_name'][0]}_overlay.jpg").is_file()
        boxes = [d["bbox"] for d in found if d["image_id"] == image["id"]]
        assert len(boxes) == 1 or refine == "none"  # a stray patch is a region of its own there
        box = max(boxes, key=lambda b: b[2] * b[3])
        ys, xs = np.nonzero(truth)
        corners = [xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()]
        assert np.abs(np.array(box) - corners).max() < (24 if refine == "none" else 4)


def test_nothing_is_found_where_there_is_nothing(drawn):
    from tests.oneshot.drawn import ground

    write_image(drawn / "empty" / "a.png", ground(320, 240, 55))
    words = ["-r", drawn / "r.png", "--mask", drawn / "m.png", "-i", drawn / "empty"]
    model = ["--model-name", "dinov3_convnext_atto", *COMMON]
    assert run(*words, *model, "--out-dir", drawn / "out") == 0
    assert not np.asarray(Image.open(drawn / "out" / "a_mask.png")).any()
    assert json.loads((drawn / "out" / "detections.json").read_text()) == []


def test_cells_of_a_mask():
    mask = np.zeros((64, 64), np.uint8)
    mask[:32, :32] = 1
    mask[40:42, 40:42] = 2  # smaller than a cell of 16 x 16
    mask[:, 60:] = 255
    cells = cells_of(mask, [0, 1, 2], 4, 4)
    assert (cells[:2, :2] == 1).all() and cells[2, 2] == 2
    assert (cells == 0).sum() == 16 - 4 - 1


def test_prototypes_tell_parts_apart():
    patch_map = torch.randn(16, 8, 8) * 0.05
    patch_map[0, :4] += 1
    patch_map[1, :4, :4] += 2
    patch_map[2, 4:] += 1
    mask = np.zeros((64, 64), np.uint8)
    mask[:32] = 3
    prototypes = build_prototypes([patch_map], [mask], parts=2, background_parts=2)
    assert prototypes.labels == [0, 3] and prototypes.vectors[3].shape == (2, 16)
    # Each half of the object has a part of its own: nearest to it in direction.
    x = prototypes.directions(patch_map.permute(1, 2, 0)[:4])
    nearest = (x @ prototypes.vectors[3].T).argmax(-1)
    assert (nearest[:, :4] == nearest[0, 0]).all() and (nearest[:, 4:] != nearest[0, 0]).all()
    scores = prototypes.scores(patch_map)
    torch.testing.assert_close(scores.sum(0), torch.ones(8, 8))
    assert (scores[1, :4] > 0.9).all() and (scores[0, 4:] > 0.9).all()


def test_grabcut_follows_the_edge():
    image, truth = scene(4)
    blocks = np.kron(truth[8::16, 8::16], np.ones((16, 16))) > 0  # as coarse as patches
    rough, fine = iou(blocks, truth), iou(grabcut(image, blocks, 16), truth)
    assert rough < 0.9 < fine
    nothing = np.zeros_like(blocks)
    assert not grabcut(image, nothing, 16).any()


def test_refining_keeps_objects_apart():
    one, two = ellipse(64, 64, (20, 32), (10, 10)), ellipse(64, 64, (46, 32), (10, 10))
    scores = np.stack([~(one | two), one, two]).astype(np.float32)
    image = np.where(one[..., None], 200, np.where(two[..., None], 90, 20)).astype(np.uint8)
    image = np.repeat(image, 3, axis=2)
    for method in ("none", "grabcut"):
        labels = refine_labels(image, scores, method)
        assert iou(labels == 1, one) > 0.9 and iou(labels == 2, two) > 0.9


def test_masks_of_every_kind(tmp_path):
    labels = np.zeros((10, 12), np.uint8)
    labels[2:5] = 3
    labels[6:8] = 255
    write_mask(tmp_path / "palette.png", labels)
    assert (read_mask(tmp_path / "palette.png") == labels).all()
    Image.fromarray((labels > 0).astype(np.uint8) * 255).save(tmp_path / "white.png")
    assert (read_mask(tmp_path / "white.png") == (labels > 0)).all()
    Image.fromarray(labels > 0).save(tmp_path / "bits.png")
    assert (read_mask(tmp_path / "bits.png") == (labels > 0)).all()
    rgb = np.repeat(labels[..., None], 3, axis=2)
    Image.fromarray(rgb).save(tmp_path / "grey_rgb.png")
    assert (read_mask(tmp_path / "grey_rgb.png") == labels).all()
    rgb[..., 1] = 7
    Image.fromarray(rgb).save(tmp_path / "colour.png")
    with pytest.raises(UserError, match="colour picture"):
        read_mask(tmp_path / "colour.png")


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (np.ones((240, 300), np.uint8), "exactly the image's size"),
        (np.zeros((240, 320), np.uint8), "is empty"),
        (np.ones((240, 320), np.uint8), "cover their whole images"),
        (None, "cannot read the mask"),
    ],
)
def test_bad_masks_are_one_message_and_nothing_is_written(drawn, capsys, mask, told):
    if mask is None:
        (drawn / "m.png").write_bytes(b"nothing")
    else:
        Image.fromarray(mask).save(drawn / "m.png")
    words = ["-r", drawn / "r.png", "--mask", drawn / "m.png", "-i", drawn / "in"]
    model = ["--model-name", "dinov3_convnext_atto", *COMMON]
    assert run(*words, *model, "--out-dir", drawn / "out") == 2
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error
    assert not (drawn / "out").exists() or not list((drawn / "out").iterdir())


def test_a_mask_for_each_reference(drawn, capsys):
    words = ["-r", drawn / "r.png", drawn / "r.png", "--mask", drawn / "m.png", "-i", drawn / "in"]
    assert run(*words, *COMMON, "--out-dir", drawn / "out") == 2
    assert "2 reference images and 1 masks" in capsys.readouterr().err
