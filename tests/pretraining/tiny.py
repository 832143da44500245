"""Small backbones for these tests."""

from __future__ import annotations

import sys

import torch

from src.backbones.base import Backbone
from src.backbones.catalog import BackboneSpec
from src.backbones.hub import BUNDLED


def tiny_vit(dim: int = 64, depth: int = 2, heads: int = 2) -> Backbone:
    """A DINOv3 ViT of the bundled hub, patch 16, 4 registers, random weights."""
    if str(BUNDLED) not in sys.path:
        sys.path.insert(0, str(BUNDLED))
    from dino_timm.models import Architecture, _dinov3_vit

    arch = Architecture("dinov3_vit", (dim,), (depth,), heads, layer_scale=1.0)
    spec = BackboneSpec(
        "tiny", "dinov3", (dim,), (depth,), 16, (depth - 1,), None, 0.1, registers=4
    )
    return Backbone(spec, _dinov3_vit(arch), taps="last", fine_tune=True)


def plain_crops(backbone: Backbone) -> None:
    """Make ``normalise`` leave float crops as they are."""
    backbone.mean = torch.zeros(3, 1, 1)
    backbone.std = torch.ones(3, 1, 1)
