"""The attention that is shown, against softmax(q k^T / sqrt(d)) made by hand from the blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from torch.nn import functional as F

from src.backbones.build import build_backbone
from src.core.errors import UserError
from src.data.common.images import write_image
from src.visualise.__main__ import main
from src.visualise.attention import AttentionModel, attention_sheet, depth_sheet

COMMON = ["--weights", "none", "--hub", "bundled", "--device", "cpu"]
SIDE = {"dinov3_vitt16": 64, "dinov2_vits14": 56, "dinov2_vits14_reg": 56}


def by_hand(attn, x, rope):
    """(weights [heads, N, N], output [N, C]) of a timm attention block for x [1, N, C]."""
    count, channels = x.shape[1:]
    bias = attn.qkv.bias
    if getattr(attn, "q_bias", None) is not None:
        bias = torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
    qkv = F.linear(x, attn.qkv.weight, bias)[0].reshape(count, 3, attn.num_heads, -1)
    q, k, v = qkv.permute(1, 2, 0, 3)
    if rope is not None:
        first = attn.num_prefix_tokens
        q, k = (
            torch.cat([t[:, :first], apply_rot_embed_cat(t[:, first:], rope, half=True)], 1)
            for t in (q, k)
        )
    scores = torch.einsum("hnd,hmd->hnm", q, k) / q.shape[-1] ** 0.5
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    joined = torch.einsum("hnm,hmd->nhd", weights, v).reshape(count, channels)
    return weights, attn.proj(attn.norm(joined))


@pytest.mark.parametrize("name", SIDE)
def test_attention_equals_an_explicit_softmax_and_the_blocks_own_output(name):
    torch.manual_seed(0)
    backbone = build_backbone(name, hub="bundled")
    # Random biases of q and v, and larger weights, so that nothing passes by being zero or even.
    with torch.no_grad():
        for key, value in backbone.hub_model.named_parameters():
            if "attn" in key and "norm" not in key:
                value.copy_(torch.randn_like(value) * 0.1)
    blocks = list(backbone.hub_model.blocks)
    inputs, outputs = [], []

    def remember(module, args, kwargs, output):
        inputs.append((args[0], kwargs.get("rope")))
        outputs.append(output)

    for block in blocks:
        block.attn.register_forward_hook(remember, with_kwargs=True)
    side = SIDE[name]
    image = torch.randint(0, 256, (3, side, side + 2 * backbone.size_divisor), dtype=torch.uint8)
    with torch.inference_mode():
        (result,) = AttentionModel(backbone, [0, -1])([image])
        explicit = [by_hand(b.attn, *given) for b, given in zip(blocks, inputs)]
    h, w = side // backbone.size_divisor, side // backbone.size_divisor + 2
    assert result["blocks"].shape == (2, backbone.hub_model.num_heads, h, w)
    for (weights, own), output in zip(explicit, outputs):
        torch.testing.assert_close(own, output[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))
    first = 1 + backbone.hub_model.n_storage_tokens
    for shown, block in ((0, 0), (1, -1)):
        expected = explicit[block][0][:, 0, first:].reshape(-1, h, w)
        torch.testing.assert_close(result["blocks"][shown], expected, atol=1e-6, rtol=1e-4)
        assert expected.std() > 1e-3 * expected.mean()  # it is not even everywhere
    means = torch.stack([weights[:, 0, first:].mean(0).reshape(h, w) for weights, _ in explicit])
    torch.testing.assert_close(result["means"], means, atol=1e-6, rtol=1e-4)
    rolled = torch.eye(first + h * w)
    for weights, _ in explicit:
        rolled = (0.5 * weights.mean(0) + 0.5 * torch.eye(first + h * w)) @ rolled
    expected = rolled[0, first:].reshape(h, w)
    torch.testing.assert_close(result["rollout"], expected, atol=1e-6, rtol=1e-4)


def test_a_hub_whose_attention_cannot_be_seen():
    backbone = build_backbone("dinov3_vitt16", hub="bundled")
    for block in backbone.hub_model.blocks:
        block.attn.fused_attn = False
    with pytest.raises(UserError, match="--hub bundled"):
        AttentionModel(backbone, [-1])([torch.zeros(3, 32, 32, dtype=torch.uint8)])


def test_what_has_no_attention_or_no_such_block():
    with pytest.raises(UserError, match="has no attention"):
        AttentionModel(build_backbone("dinov3_convnext_atto", hub="bundled"), [-1])
    with pytest.raises(UserError, match="blocks 0 to 11"):
        AttentionModel(build_backbone("dinov3_vitt16", hub="bundled"), [12])


def test_sheets_show_each_head_and_block():
    image = np.full((40, 60, 3), 128, np.uint8)
    result = {
        "blocks": torch.rand(2, 3, 4, 6),
        "means": torch.rand(12, 4, 6),
        "rollout": torch.rand(4, 6),
    }
    by_heads, by_blocks = attention_sheet(image, result, [0, 11]), depth_sheet(image, result)
    assert by_heads.shape[1] > 4 * 60 and by_heads.shape[0] > 3 * 40  # 1 + 2 rows, 1 + 3 columns
    assert by_blocks.shape[1] > 4 * 60 and by_blocks.shape[0] > 4 * 40  # 1 + 12 + 1 pictures


def test_the_numbers_beside_the_picture(tmp_path):
    write_image(
        tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (40, 70, 3), np.uint8)
    )
    words = ["attention", "-i", tmp_path / "a.png", "--model-name", "dinov3_vitt16", *COMMON]
    words += ["--imgsz", "64", "--blocks", "2", "-1", "--out-dir", tmp_path / "out"]
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in [*words, "--save-arrays"]])
    assert end.value.code == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"a_attention.png", "a_attention.npz"}
    with np.load(tmp_path / "out" / "a_attention.npz") as found:
        assert set(found) == {"blocks", "means", "rollout"}
        heads = found["blocks"].shape[1]
        assert found["blocks"].shape == (2, heads, *found["rollout"].shape)
        np.testing.assert_allclose(found["blocks"][0].mean(0), found["means"][2], rtol=1e-5)
        np.testing.assert_allclose(found["blocks"][1].mean(0), found["means"][11], rtol=1e-5)
