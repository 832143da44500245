"""One whole training step against Meta's SSLMetaArch: losses, gradients, clip, AdamW, EMA."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from src.backbones.build import build_backbone
from src.engine.optim import build_optimizer
from src.engine.settings import TrainingOptions
from src.pretraining.groups import StepValues, ssl_parameter_groups
from src.pretraining.model import Recipe, SelfDistillation
from tests.pretraining import reference
from tests.pretraining.reference import needs_reference, normal
from tests.pretraining.tiny import plain_crops, tiny_vit

pytestmark = needs_reference
PARTS = ("backbone", "dino_head", "ibot_head")
TERMS = {
    "dino_local": "dino_local_crops_loss",
    "dino_global": "dino_global_crops_loss",
    "koleo": "koleo_loss",
    "ibot": "ibot_loss",
    "gram": "gram_loss",
}


@pytest.fixture(scope="module")
def meta():
    return reference.load()


def official_shapes(names, model):
    """Shapes of Meta's backbone parameters, of ours."""
    state = model.official_state()
    return {name: tuple(state[name].shape) for name in names if name in state}


def reference_model(meta, gram: bool) -> SelfDistillation:
    recipe = Recipe(prototypes=96, hidden=48, bottleneck=16, gram=float(gram), gram_teacher="ema")
    model = SelfDistillation(tiny_vit(), recipe)
    for role in ("student", "teacher"):
        parts = getattr(model, role)
        plain_crops(parts["backbone"])
        hub = parts["backbone"].hub_model
        names = [n[9:] for n in meta["step_names"] if n.startswith("backbone.")]
        state = {
            name: reference.weights(f"{role}.backbone.{name}", shape)
            for name, shape in official_shapes(names, hub).items()
        }
        assert len(state) == len(names)
        hub.load_weights({**hub.official_state(), **state})
        for head in PARTS[1:]:
            reference.fill(parts[head], f"{role}.{head}.")
    model.temperature = 0.05
    return model.train()


def crops(meta):
    masks = torch.from_numpy(meta["ibot_masks"])
    return (
        normal(20, 16, 3, 64, 64).unflatten(0, (2, 8)),
        normal(21, 32, 3, 32, 32).unflatten(0, (4, 8)),
        masks,
    )


def by_official_name(model, values) -> dict[str, float]:
    """{Meta's name: L2 norm} of ``values(parameter name)``; biases of q and v are one there."""
    from dino_timm.official import official_name

    squares: dict[str, float] = {}
    hub = model.student["backbone"].hub_model
    for name, _ in model.student.named_parameters():
        found = re.match(r"backbone\.hub_model\.(.*)", name)
        key = f"backbone.{official_name(hub, found[1])}" if found else name
        squares[key] = squares.get(key, 0.0) + float(values(name).double().square().sum())
    return {key: value**0.5 for key, value in squares.items()}


def same_by_name(ours, names, theirs, **tolerance):
    np.testing.assert_allclose([ours[str(name)] for name in names], theirs, **tolerance)
    assert set(ours) == set(map(str, names))


@pytest.mark.parametrize("gram", [False, True])
def test_losses_and_gradients(meta, gram):
    tag = "gram_step" if gram else "step"
    model = reference_model(meta, gram)
    terms = model(*crops(meta))
    sum(terms.values()).backward()
    raw = model.watch.sums
    for ours, theirs in TERMS.items():
        if gram or ours != "gram":
            np.testing.assert_allclose(
                float(raw[f"raw_{ours}"]), meta[f"{tag}_{theirs}"], rtol=1e-5
            )
    total = float(sum(terms.values()).detach())
    np.testing.assert_allclose(total, meta[f"{tag}_loss"], rtol=1e-5)
    grads = {n: p.grad for n, p in model.student.named_parameters()}
    ours = by_official_name(model, grads.__getitem__)
    same_by_name(ours, meta[f"{tag}_names"], meta[f"{tag}_grad_norms"], rtol=1e-3, atol=1e-6)
    if not gram:
        token = "backbone.hub_model.mask_token"
        np.testing.assert_allclose(
            grads[token], meta["step_grad:backbone.mask_token"], rtol=1e-3, atol=1e-6
        )
        np.testing.assert_allclose(
            grads["backbone.hub_model.model.cls_token"],
            meta["step_grad:backbone.cls_token"],
            rtol=1e-3,
            atol=1e-6,
        )
        block = "backbone.hub_model.model.blocks.0.attn"
        bias = [grads[f"{block}.q_bias"], torch.zeros(64), grads[f"{block}.v_bias"]]
        np.testing.assert_allclose(
            torch.cat(bias), meta["step_grad:backbone.blocks.0.attn.qkv.bias"], rtol=1e-3, atol=1e-6
        )


def test_masked_tokens(meta):
    model = reference_model(meta, gram=False)
    images, _, masks = crops(meta)
    with torch.no_grad():
        answer = model.student["backbone"].hub_model.forward_features(images[0, :2], masks[:2])
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(answer["x_norm_clstoken"], meta["step_cls"], **close)
    np.testing.assert_allclose(answer["x_norm_patchtokens"], meta["step_patches"], **close)


def test_clip_optimizer_and_teacher(meta):
    model = reference_model(meta, gram=False)
    sum(model(*crops(meta)).values()).backward()
    norms = [
        float(torch.nn.utils.clip_grad_norm_(model.student[part].parameters(), 3.0))
        for part in PARTS
    ]
    np.testing.assert_allclose(norms, meta["step_clip_norms"], rtol=1e-4)
    groups = ssl_parameter_groups(model.student)
    optimizer = build_optimizer(model, groups, TrainingOptions(out_dir="unused"))
    StepValues(lambda _: 1e-3, lambda _: 0.04, last_from=1).before(0, optimizer)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer.step()
    model.update_teacher(0.992)
    after = dict(model.named_parameters())
    for role, array in (("student", "step_moved"), ("teacher", "step_teacher_moved")):
        moved = by_official_name(
            model, lambda n, role=role: (after[f"{role}.{n}"] - before[f"{role}.{n}"]).detach()
        )
        if role == "teacher":
            for name in moved:
                if name.endswith("qkv.bias"):
                    moved[name] = (moved[name] ** 2 + key_bias_moved(name) ** 2) ** 0.5
        same_by_name(moved, meta["step_names"], meta[array], rtol=2e-3, atol=1e-6)


def key_bias_moved(name: str) -> float:
    """How far Meta's teacher moved in a masked key bias, which has no effect and which we have
    not: towards the student's, which had no gradient."""
    student, teacher = (
        reference.weights(f"{role}.{name}", (192,))[64:128] for role in ("student", "teacher")
    )
    return float((1 - 0.992) * (student - teacher).norm())


def test_groups_of_the_backbone(meta):
    """Factors of learning rate and weight decay of a ViT-S, by Meta's names."""
    from dino_timm.official import official_name

    backbone = build_backbone("dinov3_vits16", weights="none", hub="bundled", fine_tune=True)
    backbone.hub_model.learn_mask_token()
    found = {}
    for group in ssl_parameter_groups(torch.nn.ModuleDict({"backbone": backbone})):
        for name in group.names:
            inner = name.removeprefix("student.backbone.hub_model.")
            found[official_name(backbone.hub_model, inner)] = (group.lr, group.weight_decay)
    names = meta["groups_vits_names"].tolist()
    assert set(found) == set(names)
    np.testing.assert_allclose([found[n][0] for n in names], meta["groups_vits_lr_multiplier"])
    np.testing.assert_allclose([found[n][1] for n in names], meta["groups_vits_wd_multiplier"])


def test_groups_of_a_head(meta):
    from src.pretraining.head import ProjectionHead

    head = ProjectionHead(384, 64)
    found = {
        name.removeprefix("student.dino_head."): group
        for group in ssl_parameter_groups(torch.nn.ModuleDict({"dino_head": head}))
        for name in group.names
    }
    rows = zip(
        meta["groups_head_names"].tolist(),
        meta["groups_head_lr_multiplier"],
        meta["groups_head_wd_multiplier"],
        meta["groups_head_is_last_layer"],
    )
    for name, rate, decay, last in rows:
        group = found[name]
        assert (group.lr, group.weight_decay) == (rate, decay)
        assert group.label.endswith(".last") == last
