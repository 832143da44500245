"""Every loss, target and head against Meta's own classes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from src.pretraining.centring import Centre, sinkhorn_knopp
from src.pretraining.head import ProjectionHead
from src.pretraining.losses import dino_loss, dino_scales, gram_loss, ibot_loss, koleo_loss
from tests.pretraining import reference
from tests.pretraining.reference import CLOSE, gradient, needs_reference, normal


@pytest.fixture(scope="module")
def meta():
    return reference.load()


def same(ours, theirs):
    np.testing.assert_allclose(np.asarray(ours), theirs, **CLOSE)


@needs_reference
@pytest.mark.parametrize("temperature", [0.04, 0.07])
def test_sinkhorn_knopp(meta, temperature):
    same(sinkhorn_knopp(normal(1, 16, 64, scale=0.5), temperature), meta[f"sk_{temperature}"])


@needs_reference
def test_softmax_centring(meta):
    teacher = normal(1, 16, 64, scale=0.5)
    centre = Centre(64)
    centre.centre.copy_(normal(2, 1, 64, scale=0.1))
    same(centre.targets(teacher, 0.07), meta["softmax_center_0.07"])
    centre.update(teacher)
    same(centre.centre, meta["center_after_update"])


@needs_reference
@pytest.mark.parametrize(
    "name, seed, crops, skip",
    [("dino_local", 3, 6, False), ("dino_global", 4, 2, True), ("dino_global_all", 4, 2, False)],
)
def test_dino(meta, name, seed, crops, skip):
    targets = sinkhorn_knopp(normal(1, 16, 64, scale=0.5), 0.07).unflatten(0, (2, 8))
    student = normal(seed, crops, 8, 64, scale=0.5)
    loss, grad = gradient(lambda x: dino_loss(x, targets, skip_same=skip), student)
    same(loss, meta[name])
    same(grad, meta[f"{name}_grad"])


@needs_reference
def test_ibot(meta):
    masks = torch.from_numpy(meta["ibot_masks"])
    targets = sinkhorn_knopp(normal(5, 39, 64, scale=0.5), 0.07)
    same(targets, meta["ibot_sk_0.07"])
    loss, grad = gradient(lambda x: ibot_loss(x, targets, masks), normal(6, 39, 64, scale=0.5))
    same(loss, meta["ibot"])
    same(grad, meta["ibot_grad"])


@needs_reference
@pytest.mark.parametrize("name, neighbours", [("koleo", 1), ("koleo_top2", 2)])
def test_koleo(meta, name, neighbours):
    loss, grad = gradient(lambda x: koleo_loss(x, neighbours=neighbours), normal(7, 10, 32))
    same(loss, meta[name])
    same(grad, meta[f"{name}_grad"])


@needs_reference
@pytest.mark.parametrize("level", ["image", "batch"])
@pytest.mark.parametrize(
    "name, negatives",
    [("gram", "keep"), ("gram_no_neg", "drop"), ("gram_no_teacher_neg", "drop-teacher")],
)
def test_gram(meta, name, negatives, level):
    teacher = normal(9, 4, 16, 32)
    loss, grad = gradient(
        lambda x: gram_loss(x, teacher, within_image=level == "image", negatives=negatives),
        normal(8, 4, 16, 32),
    )
    same(loss, meta[f"{name}_{level}"])
    same(grad, meta[f"{name}_{level}_grad"])


@needs_reference
@pytest.mark.parametrize("layers", [1, 3])
def test_head(meta, layers):
    head = ProjectionHead(32, 64, hidden=48, bottleneck=16, layers=layers)
    if layers == 1:  # Meta's has no Sequential then
        named = {"mlp.weight": head.mlp[0].weight, "mlp.bias": head.mlp[0].bias}
        named["last_layer.weight"] = head.last_layer.weight
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(reference.weights(f"head1.{name}", tuple(parameter.shape)))
    else:
        reference.fill(head, "head3.")
    x = normal(11, 10, 32)
    same(head(x).detach(), meta[f"head{layers}"])
    same(gradient(lambda v: head(v).square().sum(), x)[1], meta[f"head{layers}_input_grad"])


def test_sinkhorn_knopp_does_not_overflow():
    logits = torch.linspace(-400, 400, 8 * 32).view(8, 32)
    targets = sinkhorn_knopp(logits, 0.04)
    assert torch.isfinite(targets).all()
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(8))


def test_sinkhorn_knopp_uses_prototypes_equally():
    targets = sinkhorn_knopp(torch.randn(512, 16), 0.5, iterations=50)
    torch.testing.assert_close(targets.sum(dim=0), torch.full((16,), 32.0), rtol=1e-3, atol=1e-3)


def test_scales_are_those_of_the_pairs():
    assert dino_scales(2, 8) == (2 / 18, 16 / 18)


def test_uniform_logits_give_ln_k():
    student = torch.zeros(2, 4, 100)
    targets = torch.full((2, 4, 100), 0.01)
    assert float(dino_loss(student, targets)) == pytest.approx(math.log(100), rel=1e-6)


def test_koleo_spreads():
    x = torch.randn(16, 8) * 0.05 + torch.ones(8)
    x.requires_grad_(True)
    optimizer = torch.optim.SGD([x], lr=1.0)
    before = float(koleo_loss(x.detach()))
    for _ in range(20):
        optimizer.zero_grad()
        koleo_loss(x).backward()
        optimizer.step()
    assert float(koleo_loss(x.detach())) < before - 0.5
