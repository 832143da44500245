from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert

from src.core.errors import UserError
from src.core.structures import FeatureShape
from src.detection.heads.deimv2_loss import steps_of
from src.detection.heads.deimv2_neck import DETAIL, IMAGE, SpatialTuning
from src.detection.model import build_detector
from src.engine.precision import arithmetic
from tests.detection.heads.tester import CONVNEXT, HeadTester, picture

pytest.importorskip("transformers", minversion="5.8", reason="deimv2 needs transformers 5.8")


class TestDeimv2(HeadTester):
    head = "deimv2"
    # ``mal`` and ``fgl`` are weighed by the IoU that is reached, so they grow as boxes come nearer
    # (by 1.8 and 1.6 in 25 steps) and hide it: their sum sinks to .83, and to .97 where the layers
    # that predict boxes are not trained at all. The boxes' own terms: .64, and 1.00.
    overfit_terms = ("bbox", "giou")
    overfit_steps = 25
    overfit_share = 0.8
    # A set predictor needs more steps to place boxes than a test on the CPU can spend.
    test_finds_what_it_has_learnt = None


def test_the_vits_neck_is_transformers():
    from transformers.models.deimv2.modeling_deimv2 import (
        Deimv2Config,
        Deimv2DINOv3ConvEncoder,
        Deimv2SpatialTuningAdapter,
    )

    torch.manual_seed(0)
    neck = SpatialTuning({f"layer{n}": FeatureShape(24, 16) for n in (3, 6, 9, 12)}, 32).eval()
    assert isinstance(neck.adapter, Deimv2SpatialTuningAdapter)
    maps = {f"layer{n}": torch.randn(2, 24, 6, 4) for n in (3, 6, 9, 12)}
    image = torch.randn(2, 3, 96, 64)

    class Encoder:
        """Their encoder's own forward, on maps that are there."""

        def backbone(self, pixel_values: Tensor) -> SimpleNamespace:
            return SimpleNamespace(feature_maps=list(maps.values())[1:])

    encoder: Any = Encoder()
    encoder.backbone.__func__.config = SimpleNamespace(patch_size=16)
    encoder.spatial_tuning_adapter, encoder.fusion_proj = neck.adapter, neck.fusion
    with torch.no_grad():
        theirs = Deimv2DINOv3ConvEncoder.forward(encoder, image)
        ours = neck({**maps, IMAGE: image})
    assert Deimv2Config().spatial_tuning_adapter_inplanes == DETAIL
    assert list(ours) == ["p3", "p4", "p5"]
    for mine, other in zip(ours.values(), theirs, strict=True):
        torch.testing.assert_close(mine, other)


@torch.no_grad()
def test_in_bf16_boxes_are_those_of_float32_of_the_same_features():
    torch.manual_seed(0)
    detector = build_detector(CONVNEXT, 3, head="deimv2", channels=64).eval()
    model = detector.head.model
    decoder = model.decoder
    heads = [decoder.pre_bbox_head, *decoder.bbox_embed]
    seen: dict = {}

    def features(layer, inputs, _):
        seen[layer] = inputs[0].double()

    def points(_, args, given):
        seen["points"] = given["reference_points"].double()

    for head in heads:
        for layer in head.layers:
            torch.nn.init.xavier_normal_(layer.weight, gain=2)  # the last are nought at first
        head.layers[-1].register_forward_hook(features)
    decoder.register_forward_pre_hook(points, with_kwargs=True)
    found: list[torch.Tensor] = []
    detector.head.register_forward_hook(lambda _, inputs, out: found.append(out.pred_boxes))
    with arithmetic(torch.bfloat16, "cpu"):
        detector([picture(640, 640, (100, 100, 400, 300))])

    first, *others = (
        F.linear(seen[layer], layer.weight.double(), layer.bias.double())
        for layer in (head.layers[-1] for head in heads)
    )
    near = torch.logit(seen["points"].sigmoid(), eps=1e-5)
    x, y, w, h = (first + near).sigmoid().unbind(-1)
    steps = steps_of(detector.head.config, decoder.up.double())
    far = (sum(others).unflatten(2, (4, -1)).softmax(3) * steps).sum(3) / decoder.reg_scale.double()
    left, top, right, bottom = far.unbind(-1)
    sides = [x - (0.5 + left) * w, y - (0.5 + top) * h, x + (0.5 + right) * w]
    boxes = torch.stack([*sides, y + (0.5 + bottom) * h], -1)
    off = (box_convert(found[0].double(), "cxcywh", "xyxy") - boxes).abs().max() * 640
    assert far.abs().max() > 0.05
    assert off < 0.01, off
    shapes = ((160, 160), (80, 80), (40, 40))
    rough, fine = (
        model.generate_anchors(shapes, device="cpu", dtype=kind)[0].sigmoid()
        for kind in (torch.bfloat16, torch.float32)
    )
    assert (rough - fine).abs().max() * 640 < 0.01


def test_channels_that_do_not_fit():
    with pytest.raises(UserError, match="multiple of 32"):
        build_detector(CONVNEXT, 3, head="deimv2", channels=40)


def test_without_transformers_says_how_to_mend_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="pip install 'transformers"):
        build_detector(CONVNEXT, 3, head="deimv2", channels=32)
