from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from src.core.errors import UserError
from src.core.structures import FeatureShape
from src.detection.heads.deimv2_neck import DETAIL, IMAGE, SpatialTuning
from src.detection.model import build_detector
from tests.detection.heads.tester import CONVNEXT, HeadTester

pytest.importorskip("transformers", minversion="5.8", reason="deimv2 needs transformers 5.8")


class TestDeimv2(HeadTester):
    head = "deimv2"
    overfit_steps = 15
    overfit_share = 0.97
    overfit_lr = 1e-3
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


def test_channels_that_do_not_fit():
    with pytest.raises(UserError, match="multiple of 32"):
        build_detector(CONVNEXT, 3, head="deimv2", channels=40)


def test_without_transformers_says_how_to_mend_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="pip install 'transformers"):
        build_detector(CONVNEXT, 3, head="deimv2", channels=32)
