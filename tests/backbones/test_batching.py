"""Images of several sizes: what a model reads of one does not depend on the others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from src.backbones.batching import FeatureModel, join_images
from src.backbones.build import build_backbone


def picture(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 255, (3, height, width), generator=generator, dtype=torch.uint8)


def halve(images: Tensor) -> Tensor:
    """A normalisation that shows: 0 does not stay 0."""
    return images.float() / 255 - 0.5


def test_equal_sizes_and_mixed_sizes_are_padded_after_normalising():
    equal, sizes = join_images([picture(40, 70), picture(40, 70)], halve, (64, 96))
    assert equal.shape == (2, 3, 64, 96) and sizes == [(40, 70)] * 2
    mixed, sizes = join_images([picture(40, 70), picture(65, 20)], halve, (96, 96))
    assert mixed.shape == (2, 3, 96, 96) and sizes == [(40, 70), (65, 20)]
    for batch, (h, w) in ((equal, (40, 70)), (mixed, (40, 70))):
        torch.testing.assert_close(batch[0, :, :h, :w], halve(picture(40, 70)))
        assert not batch[0, :, h:].any() and not batch[0, :, :, w:].any()


@pytest.mark.parametrize("name", ["dinov3_vitt16", "dinov3_convnext_atto"])
def test_features_do_not_depend_on_the_batch(name):
    """Frozen, or in eval mode: the same alone, in a batch, and of what was kept."""
    images = [picture(40, 70), picture(64, 33), picture(48, 80)]
    for fine_tune, training in ((False, True), (True, False)):
        model = FeatureModel(build_backbone(name, fine_tune=fine_tune)).train(training)
        with torch.no_grad():
            together = model.feature_maps(images)
            alone = [model.feature_maps([image]) for image in images]
            kept = model.feature_maps(model.features(images))
            empty = model.read(torch.zeros(1, 3, model.divisor, model.divisor))
        blank = {key: maps[0].mean(dim=(-2, -1)) for key, maps in empty.items()}
        assert together.sizes == kept.sizes == [(40, 70), (64, 33), (48, 80)]
        assert together.padded == kept.padded == (64, 96 if "convnext" in name else 80)
        for key, maps in together.maps.items():
            assert torch.equal(maps, kept.maps[key])
            for row, one in zip(maps, alone):
                height, width = one.maps[key].shape[-2:]
                own = row[:, :height, :width]
                torch.testing.assert_close(own, one.maps[key][0], atol=1e-4, rtol=1e-4)
                filled = blank[key][:, None, None].expand_as(row)
                assert torch.equal(row[:, height:], filled[:, height:])
                assert torch.equal(row[..., width:], filled[..., width:])


def test_images_that_train_the_backbone_go_through_it_together():
    model = FeatureModel(build_backbone("dinov3_vitt16", fine_tune=True)).train()
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    model.feature_maps([picture(32, 48), picture(48, 32)])
    assert len(calls) == 1
    model.eval().features([picture(32, 48), picture(48, 32)])
    assert len(calls) == 3


def test_answers_come_in_the_order_of_the_images():
    model = FeatureModel(build_backbone("dinov3_vitt16")).eval()
    images = [picture(32, 48), picture(48, 32), picture(31, 40), picture(48, 32)]
    asked = []

    def sizes(part):
        asked.append(len(part.sizes))
        return part.sizes

    for inputs in (images, model.features(images)):
        assert model.each(inputs, sizes) == [(32, 48), (48, 32), (31, 40), (48, 32)]
    assert asked == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("shapes", "canvas"),
    [(((32, 48),) * 2, (32, 48)), (((30, 40),) * 2, (32, 48)), (((30, 40), (32, 33)), (32, 48))],
    ids=["whole", "padded", "mixed"],
)
def test_images_that_lie_channels_last_come_as_such_to_the_backbone(shapes, canvas):
    """Views [3, h, w] of [h, w, 3], as the predictor has them: on CUDA no layer needs to copy."""
    normalise = build_backbone("dinov3_convnext_atto").normalise
    plain = [torch.randint(0, 255, (3, *shape), dtype=torch.uint8) for shape in shapes]
    views = [one.permute(1, 2, 0).contiguous().permute(2, 0, 1) for one in plain]
    batch, sizes = join_images(views, normalise, canvas)
    expected, _ = join_images(plain, normalise, canvas)
    assert torch.equal(batch, expected) and sizes == list(shapes)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert not batch.is_contiguous() and expected.is_contiguous()
