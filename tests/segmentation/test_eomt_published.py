"""A folder of transformers' EoMT on DINOv3 gives transformers' own answers, here as --model."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from src.api import load
from src.core import cli
from src.core.errors import UserError
from src.engine.checkpoint import load_checkpoint
from src.segmentation.infer import infer_images
from src.segmentation.restore import restore_segmenter
from src.segmentation.segmenter import ObjectSegmenter
from src.segmentation.settings import InferSegmentationImage
from tests.segmentation.test_eomt import procedural

SIDE, NAMES = 64, ["cat", "dog", "sky"]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The model with random weights, and its folder."""
    module = pytest.importorskip("transformers.models.eomt_dinov3")
    config = module.EomtDinov3Config(
        hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768,
        num_blocks=3, num_queries=40, image_size=SIDE, id2label=dict(enumerate(NAMES)),
    )  # fmt: skip
    model = module.EomtDinov3ForUniversalSegmentation(config).eval()
    procedural(model)
    return model, tmp_path_factory.mktemp("published")


def save(model, folder: Path, task: str) -> None:
    """As it is published; few queries alone would be taken for semantic."""
    model.save_pretrained(folder)
    content = json.loads((folder / "config.json").read_text())
    content |= {"task": task, "stuff_classes": ["sky"] if task == "panoptic" else []}
    (folder / "config.json").write_text(json.dumps(content))


def theirs(model, pixels: torch.Tensor, size: tuple[int, int], task: str):
    """What its image processor and post-processing answer for uint8 [H, W, 3]."""
    from transformers.models.eomt.image_processing_eomt import EomtImageProcessor

    processor = EomtImageProcessor(
        size={"shortest_edge": SIDE, "longest_edge": SIDE}, do_pad=True, do_resize=False
    )
    inputs = processor([pixels], return_tensors="pt")
    with torch.inference_mode():
        outputs = model(inputs["pixel_values"])
    make = getattr(processor, f"post_process_{task}_segmentation")
    more = {"stuff_classes": [2]} if task == "panoptic" else {}
    return outputs, make(outputs, [size], threshold=0.5, **more)[0]


@pytest.mark.parametrize("masked", [0.0, 1.0])
@pytest.mark.parametrize("size", [(64, 64), (48, 64), (64, 40)])
def test_the_same_answers(published, tmp_path: Path, size: tuple[int, int], masked: float) -> None:
    """Logits within 1e-4, of pictures that are padded, too (black, to the square)."""
    model, folder = published
    model.attn_mask_probs.fill_(masked)
    save(model, folder, "instance")
    generator = torch.Generator().manual_seed(size[1])
    image = torch.randint(0, 255, (3, *size), generator=generator, dtype=torch.uint8)
    expected, _ = theirs(model, image, size, "instance")
    trained = restore_segmenter(folder)
    assert isinstance(trained.model, ObjectSegmenter) and trained.names == NAMES
    with torch.inference_mode():
        (found,) = trained.model([image])
    scale = expected.masks_queries_logits.abs().max().clamp(min=1)
    assert scale > 1 and tuple(found["padded"]) == (SIDE, SIDE)
    assert (found["masks"] - expected.masks_queries_logits[0]).abs().max() < 1e-4 * scale
    assert (found["classes"] - expected.class_queries_logits[0]).abs().max() < 1e-4


@pytest.mark.parametrize("task", ["instance", "panoptic"])
def test_the_same_objects_from_python(published, task: str) -> None:
    model, folder = published
    model = deepcopy(model)  # that this does not depend on what was tested before
    model.attn_mask_probs.fill_(1)
    with torch.no_grad():
        model.class_predictor.weight.mul_(2)  # sure of something
    save(model, folder, task)
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)
    pixels = torch.from_numpy(picture).permute(2, 0, 1)
    _, expected = theirs(model, pixels, (48, 64), task)
    result = load(folder, threshold=0.5, device="cpu").predict(picture)
    told = sorted((one["label_id"], one["score"]) for one in expected["segments_info"])
    mine = sorted(zip(result.labels.tolist(), result.scores.tolist()))
    assert len(mine) > 0 and [n for n, _ in mine] == [n for n, _ in told]
    np.testing.assert_allclose([s for _, s in mine], [s for _, s in told], atol=1e-4)
    there = expected["segmentation"].numpy() >= 0
    seen = result.masks.any(axis=0) if task == "instance" else result.ids > 0
    assert (there == seen).mean() > 0.999


def test_the_square_is_that_of_imgsz(published, tmp_path: Path) -> None:
    model, folder = published
    save(model, folder, "instance")
    trained = restore_segmenter(folder, imgsz=[48, 32])
    with torch.inference_mode():
        (found,) = trained.model([torch.zeros(3, 32, 16, dtype=torch.uint8)])
    assert tuple(found["padded"]) == (32, 48)


def test_by_the_command_and_what_is_refused(published, tmp_path: Path) -> None:
    from src.data.common.images import write_image

    model, folder = published
    save(model, folder, "semantic")
    write_image(tmp_path / "in/a.png", np.zeros((50, 70, 3), np.uint8))
    flags = ["--model", str(folder), "--input", str(tmp_path / "in"), "--device", "cpu"]
    flags += ["--out-dir", str(tmp_path / "out")]
    assert infer_images(cli.parse(InferSegmentationImage, flags)) == 0
    assert (tmp_path / "out/segments.json").is_file()
    for change, message in (
        ({"num_blocks": 4}, "its queries in the last 4: none of ours"),
        ({"hidden_size": 200}, "on a ViT of 200 channels"),
    ):
        config = json.loads((folder / "config.json").read_text()) | change
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(UserError, match=message):
            load_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(UserError, match="cannot read the weights"):
        load_checkpoint(tmp_path)
