"""Heads on both kinds of backbone, bins, losses, the mean with the mirrored image."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from src.core.errors import UserError
from src.depth.depther import FlipAveraged
from src.depth.heads.base import Bins, Range
from src.depth.heads.registry import HEAD_BUILDERS
from src.depth.losses import DepthLoss, silog, steps
from src.depth.model import build_depther
from src.depth.settings import Head


def test_the_table_and_the_flag_agree() -> None:
    assert tuple(HEAD_BUILDERS) == get_args(Head)


@pytest.mark.parametrize(
    "name, head, extractor",
    [
        ("dinov3_vitt16", "linear", "last"),
        ("dinov3_vitt16", "linear", "multi"),
        ("dinov3_vitt16", "dpt", "multi"),
        ("dinov3_vitt16", "dinov2-linear", "last4"),
        ("dinov3_vitt16", "dinov2-dpt", "multi"),
        ("dinov3_convnext_atto", "linear", "multi"),
        ("dinov3_convnext_atto", "dpt", "last"),
    ],
)
def test_shapes_gradients_and_range(name, head, extractor) -> None:
    torch.manual_seed(0)
    span = Range(0.5, 8, bins=16)
    model = build_depther(name, head=head, span=span, channels=16, feature_extractor=extractor)
    images = [torch.zeros(3, 40, 70, dtype=torch.uint8), torch.zeros(3, 64, 33, dtype=torch.uint8)]
    truths = [{"depth": torch.full((40, 70), 2.0)}, {"depth": torch.zeros(64, 33)}]
    sum(model.train()(images, truths).values()).backward()
    assert not [n for n, p in model.head.named_parameters() if p.grad is None]
    assert all(p.grad is None for p in model.backbone.parameters())
    with torch.inference_mode():
        found = model.eval()(images)
    assert [tuple(one.shape) for one in found] == [(1, 40, 70), (1, 64, 33)]
    assert all((one > 0.4999).all() and (one < 8.0001).all() for one in found)


def test_heads_of_the_published_models_are_for_a_vit() -> None:
    with pytest.raises(UserError, match="dinov2-linear is for a ViT"):
        build_depther("dinov3_convnext_atto", head="dinov2-linear")
    with pytest.raises(UserError, match="four maps: give --feature-extractor multi"):
        build_depther("dinov3_vitt16", head="dinov2-dpt", feature_extractor="last")


def test_metas_probe_reads_the_class_token_beside_the_patches() -> None:
    model = build_depther("dinov3_vitt16", head="linear", feature_extractor="last").eval()
    x = torch.randn(1, 3, 32, 48)
    with torch.inference_mode():
        (joined,) = model.backbone(x, class_token=True).values()
        ((patches, token),) = model.backbone.tokens(x, 1)
    torch.testing.assert_close(joined[:, :192], patches)
    assert (joined[:, 192:] == token[:, :, None, None]).all()
    assert model.head.probe.classify["layer12"].weight.shape == (256, 384, 1, 1)


def test_bins_are_metas_formula() -> None:
    """dinov2/eval/depth: (relu(s) + 0.1) / sum times linspace(min, max, bins)."""
    torch.manual_seed(0)
    scores = torch.randn(2, 256, 3, 4)
    shares = scores.clamp(min=0) + 0.1
    depths = torch.linspace(0.001, 10, 256).view(1, -1, 1, 1)
    expected = (shares * depths).sum(1, keepdim=True) / shares.sum(1, keepdim=True)
    torch.testing.assert_close(Bins(Range())(scores), expected)
    sharp = torch.full((1, 5, 1, 1), -40.0)
    sharp[0, 3] = 40
    assert Bins(Range(1, 9, 5, "softmax"))(sharp).item() == pytest.approx(7)


def test_losses() -> None:
    torch.manual_seed(0)
    truth = torch.rand(2, 12, 16) * 5 + 1
    depth = truth[:, None]
    loss = DepthLoss("silog+steps")
    assert sum(loss(depth, truth).values()).item() == pytest.approx(0, abs=1e-3)
    terms = loss(depth * 2, truth)  # all too far by one factor: no variance, no steps
    assert terms["silog"].item() == pytest.approx((0.15**0.5) * 0.6931, rel=1e-2)
    assert terms["steps"].item() == pytest.approx(0, abs=5e-3)
    error = torch.randn(4, 50)
    known = torch.rand(4, 50) > 0.3
    some = error[known]
    expected = (some.var(unbiased=False) + 0.15 * some.mean() ** 2).sqrt()
    assert silog(error, known).item() == pytest.approx(expected.item(), rel=1e-4)
    assert steps(torch.arange(8.0).expand(1, 8, 8), torch.ones(1, 8, 8) > 0) > 0


def test_unmeasured_pixels_count_for_nothing() -> None:
    torch.manual_seed(0)
    truth = torch.rand(1, 8, 8) + 1
    truth[:, :4] = 0
    one, other = torch.rand(1, 1, 8, 8) + 1, torch.rand(1, 1, 8, 8) + 1
    other[:, :, 4:] = one[:, :, 4:]
    loss = DepthLoss("silog+steps")
    for name, value in loss(one, truth).items():
        assert value.item() == pytest.approx(loss(other, truth)[name].item(), rel=1e-5)
    nothing = loss(one.requires_grad_(), torch.zeros(1, 8, 8))
    sum(nothing.values()).backward()
    assert sum(nothing.values()).item() == 0 and (one.grad == 0).all()


def test_flip_average() -> None:
    class Columns(nn.Module):
        def forward(self, images):
            return [torch.arange(4.0).expand(1, 2, 4) + image.mean() for image in images]

    found = FlipAveraged(Columns())([torch.zeros(3, 2, 4), torch.ones(3, 2, 4)])
    torch.testing.assert_close(found[0], torch.full((1, 2, 4), 1.5))
    torch.testing.assert_close(found[1], torch.full((1, 2, 4), 2.5))


def test_targets_are_asked_for() -> None:
    model = build_depther("dinov3_convnext_atto", channels=16).train()
    with pytest.raises(UserError, match="needs one target an image"):
        model([torch.zeros(3, 32, 32)])
    with pytest.raises(UserError, match="did you mean 'linear'"):
        build_depther("dinov3_convnext_atto", head="linea")
