from __future__ import annotations

import pytest
import torch

from src.backbones.build import build_backbone
from src.backbones.pyramid import SingleLevel, _one_cell, build_pyramid
from src.core.structures import FeatureShape

SHAPES = {
    "vit": {f"layer{i}": FeatureShape(48, 16) for i in (3, 6, 9, 12)},
    "patch 14": {f"layer{i}": FeatureShape(48, 14) for i in (3, 6)},
    "one tap": {"layer12": FeatureShape(48, 16)},
    "convnext": {f"stage{i + 1}": FeatureShape(8 * 2**i, 4 * 2**i) for i in range(4)},
    "last stage": {"stage4": FeatureShape(64, 32)},
}


def maps_of(shapes: dict[str, FeatureShape], height: int, width: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(
            2, s.channels, -(-height // s.stride), -(-width // s.stride), generator=generator
        )
        for name, s in shapes.items()
    }


@pytest.mark.parametrize("levels", [1, 3, 5])
@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_as_announced(name, levels):
    pyramid = build_pyramid(SHAPES[name], channels=16, levels=levels)
    shapes = pyramid.output_shape()
    finest = 7 if name == "patch 14" else 8
    assert list(shapes) == [f"p{3 + i}" for i in range(levels)]
    assert [s.stride for s in shapes.values()] == [finest * 2**i for i in range(levels)]
    stride = max(s.stride for s in SHAPES[name].values())
    height, width = 5 * stride, 7 * stride
    answers = pyramid(maps_of(SHAPES[name], height, width))
    assert list(answers) == list(shapes)
    for level, x in answers.items():
        s = shapes[level].stride
        assert x.shape == (2, 16, -(-height // s), -(-width // s)), level


@pytest.mark.parametrize("name", ["dinov3_vitt16", "dinov3_convnext_atto"])
def test_on_backbones(name):
    backbone = build_backbone(name, feature_extractor="multi")
    pyramid = build_pyramid(backbone.output_shape(), channels=32)
    levels = pyramid(backbone(torch.randn(1, 3, 96, 160)))
    assert [tuple(x.shape[1:]) for x in levels.values()] == [
        (32, -(-96 // s), -(-160 // s)) for s in (8, 16, 32, 64, 128)
    ]


@pytest.mark.parametrize("name", ["vit", "convnext"])
def test_every_parameter_is_used(name):
    pyramid = build_pyramid(SHAPES[name], channels=16)
    levels = pyramid(maps_of(SHAPES[name], 128, 128))
    sum((x * torch.randn_like(x)).sum() for x in levels.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in pyramid.parameters())


def test_begins_as_vitdets_from_the_last_tap_alone():
    torch.manual_seed(0)
    pyramid = build_pyramid(SHAPES["vit"], channels=16)
    maps = maps_of(SHAPES["vit"], 64, 64)
    changed = {**maps, "layer3": maps["layer3"] + 1}
    assert torch.equal(pyramid(maps)["p3"], pyramid(changed)["p3"])
    torch.nn.init.normal_(pyramid.taps[0].weight)
    assert not torch.equal(pyramid(maps)["p3"], pyramid(changed)["p3"])


def test_finer_levels_see_finer_detail():
    # A change in one cell of the finest stage moves p3 there, and not far away.
    torch.manual_seed(0)
    pyramid = build_pyramid(SHAPES["convnext"], channels=16)
    maps = maps_of(SHAPES["convnext"], 256, 256)
    changed = {name: x.clone() for name, x in maps.items()}
    changed["stage2"][:, :, 4, 20] += 3
    difference = (pyramid(maps)["p3"] - pyramid(changed)["p3"]).abs().amax(dim=(0, 1))
    row, column = divmod(int(difference.argmax()), difference.shape[1])
    assert abs(row - 4) <= 1 and abs(column - 20) <= 1
    assert difference[20, 4] == 0


def test_single_level_is_the_last_map_in_channels():
    level = SingleLevel(SHAPES["convnext"], 16)
    assert level.output_shape() == {"p5": FeatureShape(16, 32)}
    answers = level(maps_of(SHAPES["convnext"], 64, 96))
    assert answers["p5"].shape == (2, 16, 2, 3)


def test_a_map_of_one_cell_has_plain_strides():
    """Else torch's CPU leaves the bf16 gradient of a depthwise kernel uninitialised (2.14)."""
    cell = torch.randn(2, 1, 1, 32).permute(0, 3, 1, 2)
    assert cell.stride() == (32, 1, 32, 32)
    assert _one_cell(cell).stride() == (32, 1, 1, 1) and torch.equal(_one_cell(cell), cell)
    large = torch.randn(2, 3, 4, 32).permute(0, 3, 1, 2)
    assert _one_cell(large) is large
