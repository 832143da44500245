"""Meta's DINOv2 heads by name answer what Meta's code does: ImageNet, ADE20K, VOC, NYU, KITTI."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

import src as dino_stack
from src.classification.restore import restore_classifier
from src.core.cli import parse
from src.core.errors import UserError
from src.data.common.images import write_image
from src.depth.restore import restore_depther
from src.engine.initial import start_from
from src.evaluate import EvaluateOptions, evaluate
from src.models.dinov2 import ROWS
from src.segmentation.model import build_segmenter
from src.segmentation.restore import restore_segmenter
from tests.models.official_dinov2 import CROP, KINDS, SIZE, answer, build, halves, thinned
from tests.models.procedural import clone_of, fill, load_reference, picture

SHAPES, ANSWERS = load_reference("dinov2.npz")
RESTORE = {
    "classification": restore_classifier,
    "segmentation": restore_segmenter,
    "depth": restore_depther,
}


def drawn(part: str) -> dict[str, torch.Tensor]:
    """The weights of a part of the reference, under Meta's names."""
    return {
        name: torch.tensor(0) if name.endswith("tracked") else fill(name, tuple(value.shape))
        for name, value in SHAPES[part].items()
    }


@pytest.fixture
def published(tmp_path, monkeypatch):
    """published(kind) -> hub:NAME, its files in the weights folder as they are published."""
    monkeypatch.setenv("DINOv2_WEIGHTS", str(tmp_path))

    def put(kind: str) -> str:
        row = next(row for row in ROWS if row.name == f"dinov2_vits14_{kind}")
        head, backbone = (file.path for file in row.files)
        head.parent.mkdir(exist_ok=True)
        plain = kind.startswith("imagenet")
        content = {"meta": {"epoch": 1}, "state_dict": drawn(kind), "optimizer": {}}
        torch.save(drawn(kind) if plain else content, head)
        if not backbone.is_file():
            torch.save(drawn("backbone"), backbone)
        return f"hub:{row.name}"

    return put


def ours(name: str, kind: str) -> np.ndarray:
    row = next(row for row in ROWS if f"hub:{row.name}" == name)
    trained = RESTORE[row.task](name)
    size = CROP if kind.startswith("imagenet") else SIZE
    with torch.inference_mode():
        return trained.model([picture(*size)])[0].numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_metas_numbers(kind, published):
    found = thinned(ours(published(kind), kind))
    assert found.shape == ANSWERS[kind].shape
    assert np.abs(found - ANSWERS[kind]).max() < 1e-4
    assert ANSWERS[kind].std() > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_the_clone_says_the_same(kind):
    """With Meta's code at hand: names and numbers of the reference are today's."""
    clone = clone_of("DINOv2_REPO", "dinov2")
    if clone is None:
        pytest.skip("no clone of facebookresearch/dinov2: set DINOv2_REPO in .env")
    model = build(clone, kind)
    head, backbone = halves(model)
    for state, part in ((head, kind), (backbone, "backbone")):
        assert {k: v.shape for k, v in state.items()} == {
            k: v.shape for k, v in SHAPES[part].items()
        }
    assert np.abs(thinned(answer(model, kind)) - ANSWERS[kind]).max() < 1e-5


def test_what_they_are_called(published):
    classifier = dino_stack.load(published("imagenet"))
    assert classifier.names[0] == "tench" and len(set(classifier.names)) == 1000
    assert "tabby" in classifier.names and "crane (n02012849)" in classifier.names
    segmenter = dino_stack.load(published("voc2012_ms"))
    assert segmenter.names[:2] == ["background", "aeroplane"]
    depth = restore_depther(published("kitti_linear4"))
    assert depth.image_size == (1216, 352)
    assert float(depth.model.head.bins.depths[-1]) == 80
    result = dino_stack.load(published("nyu_linear"), imgsz=[98, 70]).predict(picture(70, 98))
    assert result.metres.shape == (70, 98)
    assert result.metres.min() > 0 and result.metres.max() < 10


def test_a_segmenter_starts_from_the_linear_head(published, caplog):
    caplog.set_level("INFO")
    name = published("ade20k_linear")
    built = {"head": "linear", "feature_extractor": "last", "hub": "bundled"}
    model = build_segmenter("dinov2_vits14", 3, **built)
    start_from(model, name, ["sky", "unicorn", "car"])
    classes = dino_stack.load(name).names
    rows = model.head.classify["layer12"].weight.flatten(1)
    theirs = drawn("ade20k_linear")["decode_head.conv_seg.weight"].flatten(1)
    assert torch.equal(rows[0], theirs[classes.index("sky")])
    assert torch.equal(rows[2], theirs[classes.index("car")])
    assert "classes that start anew: unicorn" in caplog.text


def test_a_head_of_another_kind(published):
    name = published("nyu_dpt")
    row = next(row for row in ROWS if f"hub:{row.name}" == name)
    torch.save(drawn("nyu_linear"), row.files[0].path)
    with pytest.raises(UserError, match="of another model.*conv_depth"):
        restore_depther(name)
    torch.save(drawn("backbone") | {"blocks.12.norm1.weight": torch.ones(1)}, row.files[1].path)
    with pytest.raises(UserError, match="unknown ViT"):
        restore_depther(name)


def test_every_row_has_its_files_and_a_licence():
    assert len({row.name for row in ROWS}) == len(ROWS) == 16 + 40
    for row in ROWS:
        assert row.licence == "Apache-2.0" and (row.figure == "-") == (row.source == "-")
        head, backbone = row.files
        assert head.url.startswith("https://dl.fbaipublicfiles.com/dinov2/dinov2_vit")
        assert backbone.backbone and backbone.name.endswith("_pretrain.pth")


def test_imagenet_is_evaluated_from_its_folders(published, tmp_path):
    """Folders have the names of synsets, and the classifier those of its classes."""
    for folder in ("n01440764", "n02123045"):
        (tmp_path / "val" / folder).mkdir(parents=True)
        write_image(tmp_path / "val" / folder / "a.png", picture(*CROP).permute(1, 2, 0).numpy())
    words = ["--model", published("imagenet"), "--data-root", tmp_path, "--imgsz", *CROP]
    words += ["--out-dir", tmp_path / "out", "--workers", 0]
    results = evaluate(parse(EvaluateOptions, [str(word) for word in words], "evaluate"))
    assert results["images"] == 2
    rows = list(csv.DictReader((tmp_path / "out" / "images.csv").open()))
    assert {row["truth"] for row in rows} == {"tench", "tabby"}
