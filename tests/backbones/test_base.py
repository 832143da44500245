"""The backbone's contract: maps, strides, padding, frozen means frozen."""

from __future__ import annotations

import pytest
import torch

from src.backbones.build import build_backbone

SMALL = ["dinov3_vitt16", "dinov3_convnext_atto"]


@pytest.mark.parametrize("feature_extractor", ["last", "multi"])
@pytest.mark.parametrize("name", SMALL)
def test_maps_are_as_announced_at_any_size(name, feature_extractor):
    backbone = build_backbone(name, feature_extractor=feature_extractor)
    shapes = backbone.output_shape()
    assert len(shapes) == (1 if feature_extractor == "last" else 4)
    for height, width in ((64, 96), (75, 50)):
        maps = backbone(torch.randn(2, 3, height, width))
        assert list(maps) == list(shapes)
        padded = [-(-side // backbone.size_divisor) * backbone.size_divisor
                  for side in (height, width)]  # fmt: skip
        for key, shape in shapes.items():
            expected = (2, shape.channels, *(side // shape.stride for side in padded))
            assert maps[key].shape == expected


@pytest.mark.parametrize("name", SMALL)
def test_padding_changes_nothing_of_the_image(name):
    backbone = build_backbone(name)
    x = torch.randn(1, 3, 50, 70)
    padded = backbone.pad(x)
    assert torch.equal(padded[..., :50, :70], x)
    assert padded[..., 50:, :].abs().sum() == 0
    assert not any(side % backbone.size_divisor for side in padded.shape[-2:])


@pytest.mark.parametrize("name", SMALL)
def test_frozen_is_frozen(name):
    backbone = build_backbone(name)
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    head = torch.nn.Conv2d(list(backbone.output_shape().values())[-1].channels, 1, 1)
    model = torch.nn.ModuleDict({"backbone": backbone, "head": head}).train()
    assert not backbone.hub_model.training
    maps = backbone(torch.randn(1, 3, 64, 64))
    assert all(not m.requires_grad for m in maps.values())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1.0)
    head(list(maps.values())[-1]).sum().backward()
    optimizer.step()
    assert len(optimizer.state) == 2
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())


@pytest.mark.parametrize("name", SMALL)
def test_fine_tuning_reaches_every_parameter(name):
    backbone = build_backbone(name, fine_tune=True).train()
    maps = backbone(torch.randn(1, 3, 64, 64))
    sum(m.square().mean() for m in maps.values()).backward()
    assert [k for k, p in backbone.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", SMALL)
def test_layers_run_from_embedding_to_norm(name):
    backbone = build_backbone(name)
    layers = {backbone.layer_of(key) for key, _ in backbone.named_parameters()}
    assert layers == set(range(backbone.num_layers + 1))


def test_uint8_and_float_images_are_the_same_image():
    backbone = build_backbone("dinov3_convnext_atto")
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(backbone.normalise(image), backbone.normalise(image / 255.0))
