"""EoMT's model zoo on DINOv3 answers what its authors' code does; what is published is a difference
from Meta's weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import src as dino_stack
from src.backbones.catalog import CATALOG
from src.backbones.hub import load_hub_model
from src.core.errors import UserError
from src.models.eomt_zoo import ROWS
from src.segmentation.restore import restore_segmenter
from tests.models.official_eomt import SIDE, answer, build, weights
from tests.models.procedural import clone_of, fill, load_reference, picture

pytest.importorskip("transformers.models.eomt_dinov3")
SHAPES, ANSWERS = load_reference("eomt.npz")
ROW = next(row for row in ROWS if row.name == "eomt_dinov3_s_coco_panoptic_640")
META = load_hub_model(CATALOG["dinov3_vits16"], "none", "bundled").official_state()


def difference() -> dict[str, torch.Tensor]:
    """The reference's weights, as what would be added to a backbone of zeros."""
    drawn = {name: fill(name, tuple(value.shape)) for name, value in SHAPES["s"].items()}
    drawn["network.attn_mask_probs"] = -torch.ones(3)  # masked attention has been annealed away
    return drawn


@pytest.fixture
def published(tmp_path, monkeypatch):
    """published(difference, backbone): both files in the weights folder; answers hub:NAME."""
    monkeypatch.setenv("DINOv3_WEIGHTS", str(tmp_path))

    def put(change: dict, backbone: dict) -> str:
        (tmp_path / "hub").mkdir(exist_ok=True)
        torch.save(change, ROW.files[0].path)
        torch.save(backbone, ROW.files[1].path)
        return f"hub:{ROW.name}"

    return put


def test_the_authors_numbers(published):
    zeros = {name: value * 0 for name, value in META.items()}
    zeros["rope_embed.periods"] = META["rope_embed.periods"]
    trained = restore_segmenter(published(difference(), zeros))
    model = trained.model
    batch = model.backbone.normalise(picture(SIDE, SIDE)[None])
    with torch.inference_mode():
        (found,) = model.head.queries(model.backbone.tokens_below(batch))
    scale = np.abs(ANSWERS["masks"]).max()
    assert np.abs(found.masks[0, ::9, ::3, ::3].numpy() - ANSWERS["masks"]).max() < 1e-4 * scale
    assert np.abs(found.classes[0, ::9].numpy() - ANSWERS["classes"]).max() < 1e-4
    assert trained.image_size == (640, 640) and len(trained.names) == 133
    config = trained.checkpoint["config"]
    assert config["task"] == "panoptic"
    assert set(config["dataset"]["STUFF_CLASSES"]) < set(trained.names)


def test_the_backbone_is_metas_and_the_difference(published):
    """Without a difference the ViT's blocks are Meta's, loaded as they always are."""
    torch.manual_seed(0)
    meta = {name: value + 0.1 * torch.randn_like(value) for name, value in META.items()}
    meta |= {name: value for name, value in META.items() if "mask" in name or "periods" in name}
    change = {
        name: value * 0 if ".encoder." in name else value for name, value in difference().items()
    }
    model = restore_segmenter(published(change, meta)).model
    hub = load_hub_model(CATALOG["dinov3_vits16"], str(ROW.files[1].path), "bundled")
    expected = hub.state_dict()
    found = model.backbone.hub_model.state_dict()
    assert all(torch.allclose(value, expected[name]) for name, value in found.items())
    for name, value in model.head.tail.state_dict().items():
        block, _, rest = name.removeprefix("blocks.").partition(".")
        theirs = f"model.blocks.{int(block) + 9}.{rest}" if "blocks." in name else f"model.{name}"
        assert torch.allclose(value, expected[theirs]), name


def test_the_clone_says_the_same():
    """With the authors' code at hand: the names are today's, and the numbers."""
    clone = clone_of("EOMT_REPO", "eomt")
    if clone is None:
        pytest.skip("no clone of tue-mps/eomt: set EOMT_REPO in .env")
    model = build(clone)
    state = weights(model)
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in SHAPES["s"].items()}
    own = {name.removeprefix("network."): value for name, value in state.items()}
    model.load_state_dict(own, strict=False)
    masks, classes = answer(model)
    assert np.abs(masks[::9, ::3, ::3].numpy() - ANSWERS["masks"]).max() < 1e-4
    assert np.abs(classes[::9].numpy() - ANSWERS["classes"]).max() < 1e-5


def test_without_metas_weights_it_says_where_they_go(published, tmp_path):
    name = published(difference(), META)
    ROW.files[1].path.unlink()
    with pytest.raises(UserError, match="needs the backbone's own weights as .*vits16_pretrain"):
        dino_stack.load(name)
