"""EoMT: transformers' numbers, masked attention and its end, what it does to a ViT."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from src.backbones.build import build_backbone
from src.core.errors import UserError
from src.evaluate import EvaluateOptions, evaluate
from src.segmentation.heads.eomt import EomtHead
from src.segmentation.model import build_segmenter
from src.segmentation.restore import restore_segmenter
from tests.features.test_cached_tasks import draw, run

CLASSES, QUERIES, SIDE = 3, 7, 4  # the side of the grid of patches


@torch.no_grad()
def procedural(module: torch.nn.Module) -> None:
    """Weights that are far from trivial: every parameter random, norms and scales around 1."""
    torch.manual_seed(3)
    for name, parameter in module.named_parameters():
        parameter.normal_(std=0.08)
        if parameter.ndim == 1 and ("norm" in name or "scale" in name or "gamma" in name):
            parameter.add_(1)


def ours(name: str) -> tuple[torch.nn.Module, EomtHead]:
    backbone = build_backbone(name)
    head = EomtHead(backbone, CLASSES, QUERIES)
    return backbone, head


def answer(backbone, head, image: Tensor) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        (found,) = head.eval().queries(backbone.tokens_below(image))
    return found.masks, found.classes


def theirs_of(backbone, head) -> torch.nn.Module:
    """transformers' model with the weights of ours."""
    hub, tail = backbone.hub_model, head.tail
    rotary = hub.rope is not None
    block = tail.blocks[0]
    common = {
        "hidden_size": tail.channels,
        "num_hidden_layers": len(hub.blocks) + len(tail.blocks),
        "num_attention_heads": hub.num_heads,
        "image_size": SIDE * tail.patch,
        "patch_size": tail.patch,
        "num_blocks": len(tail.blocks),
        "num_labels": CLASSES,
        "num_queries": QUERIES,
        "num_register_tokens": hub.n_storage_tokens,
        "layer_norm_eps": tail.norm.eps,
        "num_upscale_blocks": len(head.upscale.block),
    }
    if rotary:
        module = pytest.importorskip("transformers.models.eomt_dinov3")
        config = module.EomtDinov3Config(intermediate_size=4 * tail.channels, **common)
        model = module.EomtDinov3ForUniversalSegmentation(config)
    else:
        module = pytest.importorskip("transformers.models.eomt")
        model = module.EomtForUniversalSegmentation(module.EomtConfig(**common))
    width = tail.channels
    state: dict[str, Tensor] = {
        "embeddings.cls_token": hub.model.cls_token,
        "embeddings.register_tokens": hub.model.reg_token,
        "query.weight": head.query.weight,
        "class_predictor.weight": head.classify.weight,
        "class_predictor.bias": head.classify.bias,
        "attn_mask_probs": head.masking,
    }
    patches = "embeddings.patch_embeddings" + ("" if rotary else ".projection")
    state |= {f"{patches}.{k}": v for k, v in hub.model.patch_embed.proj.state_dict().items()}
    if not rotary:
        side = int(hub.model.pos_embed.shape[1] ** 0.5)
        places = hub._resample(hub.model.pos_embed, side, SIDE, SIDE)[0]
        state["embeddings.position_embeddings.weight"] = places
    for part, mine in (("layernorm", tail.norm), ("upscale_block", head.upscale)):
        state |= {f"{part}.{k}": v for k, v in mine.state_dict().items()}
    state |= {f"mask_head.{k}": v for k, v in head.mask_head.state_dict().items()}
    for index, block in enumerate([*hub.blocks, *tail.blocks]):
        here, out = f"layers.{index}", "o_proj" if rotary else "out_proj"
        up, down = ("up_proj", "down_proj") if rotary else ("fc1", "fc2")
        attention = block.attn
        for part, weight in zip("qkv", attention.qkv.weight.split(width)):
            state[f"{here}.attention.{part}_proj.weight"] = weight
        if rotary:
            state[f"{here}.attention.q_proj.bias"] = attention.q_bias
            state[f"{here}.attention.v_proj.bias"] = attention.v_bias
            scales = block.gamma_1, block.gamma_2
        else:
            for part, bias in zip("qkv", attention.qkv.bias.split(width)):
                state[f"{here}.attention.{part}_proj.bias"] = bias
            scales = block.ls1.gamma, block.ls2.gamma
        for name, layer in (
            (f"attention.{out}", attention.proj), ("norm1", block.norm1), ("norm2", block.norm2),
            (f"mlp.{up}", block.mlp.fc1), (f"mlp.{down}", block.mlp.fc2),
        ):  # fmt: skip
            state |= {f"{here}.{name}.{k}": v for k, v in layer.state_dict().items()}
        for number, scale in enumerate(scales, start=1):
            state[f"{here}.layer_scale{number}.lambda1"] = scale
    loaded = model.load_state_dict(state, strict=False)
    assert not loaded.unexpected_keys
    assert all("criterion" in key for key in loaded.missing_keys), loaded.missing_keys
    return model.eval()


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("name", ["dinov3_vitt16", "dinov2_vits14_reg"])
def test_the_numbers_of_transformers(name: str, masked: bool) -> None:
    """The same weights, the same logits, with masked attention in all blocks and in none."""
    backbone, head = ours(name)
    procedural(torch.nn.ModuleList([backbone, head]))
    head.masking.fill_(float(masked))
    side = SIDE * head.tail.patch
    image = torch.randn(2, 3, side, side)
    masks, classes = answer(backbone, head, image)
    with torch.inference_mode():
        theirs = theirs_of(backbone, head)(image)
    assert masks.shape == (2, QUERIES, 4 * SIDE, 4 * SIDE)
    assert classes.shape == (2, QUERIES, CLASSES + 1)
    assert masks.std() > 0.5 and classes.std() > 0.1
    scale = masks.abs().max()
    assert (masks - theirs.masks_queries_logits).abs().max() < 1e-4 * scale.clamp(min=1)
    assert (classes - theirs.class_queries_logits).abs().max() < 1e-4
    head.masking.fill_(float(not masked))
    assert (answer(backbone, head, image)[0] - masks).abs().max() > 1e-2 * scale


def test_without_queries_the_tail_is_the_rest_of_the_vit() -> None:
    """Blocks below and tail, one after the other: the map that the whole ViT gives."""
    for name in ("dinov3_vitt16", "dinov2_vits14"):
        whole = build_backbone(name, feature_extractor="last")
        image = torch.randn(1, 3, 5 * whole.size_divisor, 3 * whole.size_divisor)
        with torch.inference_mode():
            (expected,) = whole(image).values()
            head = EomtHead(whole, CLASSES, 0)
            tokens, grid = head.tail.join(head.query.weight, whole.tokens_below(image))
            for index in range(3):
                tokens = head.tail.block(index, tokens, grid)
            found = head.tail.split(tokens, grid)[1]
        assert grid == (5, 3)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_masked_attention_ends_block_after_block() -> None:
    """Of 3 blocks and 50 steps: the first fades from step 10 to 20, the last from 30 to 40."""
    _, head = ours("dinov3_vitt16")
    head.train().plan(50)
    seen = []
    for _ in range(50):
        head._anneal()
        seen.append(head.masking.tolist())
    assert seen[9] == [1, 1, 1] and seen[-1] == [0, 0, 0]
    assert seen[14][0] == pytest.approx(0.5**0.9, abs=1e-5) and seen[14][1:] == [1, 1]
    assert seen[19][0] == 0 and seen[29] == [0, 0, 1] and 0 < seen[34][2] < 1
    assert all(a >= b for one, two in zip(seen, seen[1:]) for a, b in zip(one, two))
    head.eval()
    assert head._masked() == [False] * 3
    head.load_state_dict({**head.state_dict(), "masking": torch.tensor([0.0, 0.4, 0.9])})
    assert head._masked() == [False, False, True]  # of a run that was stopped on its way


def test_a_query_looks_at_its_own_mask_only() -> None:
    _, head = ours("dinov3_vitt16")
    logits = torch.full((1, QUERIES, 16, 16), -1.0)
    logits[0, 2, :8, :8] = 1.0
    own = QUERIES + head.tail.prefix
    mask = head.eval()._mask(logits, own + 16, (4, 4), 0)[0]
    corner = torch.zeros(4, 4, dtype=torch.bool)
    corner[:2, :2] = True
    assert torch.equal(mask[2, own:], corner.flatten()) and not mask[1, own:].any()
    assert mask[:, :own].all() and mask[QUERIES:].all()
    head.train().masking.zero_()  # annealed away: everybody looks at everything
    assert head._mask(logits, own + 16, (4, 4), 0).all()


def test_the_last_blocks_are_trained_even_of_a_frozen_vit_and_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_segmenter("dinov3_vitt16", CLASSES, head="eomt").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    image, mask = torch.zeros(3, 48, 32), torch.ones(48, 32, dtype=torch.uint8)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    sum(model([image], [{"mask": mask}]).values()).backward()
    assert not [n for n, p in model.head.named_parameters() if p.grad is None]
    optimizer.step()
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert any(name.startswith("head.tail.blocks.2.attn") for name in changed)
    assert not [name for name in changed if name.startswith("backbone.")]
    again = build_segmenter("dinov3_vitt16", CLASSES, head="eomt").eval()
    again.load_state_dict(model.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(again([image])[0], model.eval()([image])[0])


def test_a_convnext_is_refused() -> None:
    with pytest.raises(UserError, match="--head eomt works inside .* is none"):
        build_segmenter("dinov3_convnext_atto", CLASSES, head="eomt")


def test_a_run_keeps_the_tokens_below_and_unmasks_its_blocks(tmp_path: Path) -> None:
    """Training with and without --cache-features on images of three sizes: the same losses but for
    rounding; at the end of the run no block masks any more; the checkpoint answers as the run."""
    root = draw(tmp_path)
    flags = ("--head", "eomt", "--lr", 1e-3)
    plain = run(root, "segmentation", "plain", *flags)
    kept = run(root, "segmentation", "kept_run", *flags, "--cache-features")
    for ours, theirs in zip(kept, plain):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-2)
    content = torch.load(root / "kept_run" / "last_model.pth", weights_only=True)["model"]
    assert content["head.masking"].tolist() == [0, 0, 0] and content["head.steps"] == 2 * 3
    trained = restore_segmenter(root / "plain" / "best_model.pth")
    assert isinstance(trained.model.head, EomtHead)
    options = EvaluateOptions(
        model=root / "plain" / "best_model.pth", workers=0, device="cpu", out_dir=root / "eval"
    )
    best = max(row["mIoU"] for row in plain)
    assert evaluate(options)["mIoU"] == pytest.approx(best, abs=1e-4)
