from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from src.core.structures import Size
from src.data.images import fitted_size
from src.detection.transform import InputTransform
from tests.detection.heads.tester import picture, target


def halve(images: Tensor) -> Tensor:
    """A normalisation that shows: 0 does not stay 0."""
    return images.float() / 255 - 0.5


def test_equal_sizes_and_mixed_sizes_are_padded_after_normalising():
    transform = InputTransform(divisor=32)
    equal, _ = transform.prepare([picture(40, 70), picture(40, 70)], None, halve)
    assert equal.tensors.shape == (2, 3, 64, 96) and equal.image_sizes == [(40, 70)] * 2
    mixed, _ = transform.prepare([picture(40, 70), picture(65, 20)], None, halve)
    assert mixed.tensors.shape == (2, 3, 96, 96) and mixed.image_sizes == [(40, 70), (65, 20)]
    for batch, (h, w) in ((equal, (40, 70)), (mixed, (40, 70))):
        torch.testing.assert_close(batch.tensors[0, :, :h, :w], halve(picture(40, 70)))
        assert not batch.tensors[0, :, h:].any() and not batch.tensors[0, :, :, w:].any()


def test_an_image_of_the_right_size_is_left_alone():
    transform = InputTransform(size=Size(96, 64), resize="fit")
    for height, width in ((64, 96), (64, 40), (30, 96)):
        image = picture(height, width)
        batch, targets = transform.prepare([image], [target((1, 2, 3, 4, 1))], halve)
        assert torch.equal(batch.tensors[0], halve(image))
        assert targets[0]["boxes"].tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("mode", ["fit", "stretch"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_targets_follow_the_image_and_detections_come_back(mode, dtype):
    size = Size(160, 120)
    transform = InputTransform(divisor=16, size=size, resize=mode)
    image = picture(50, 80, (20, 10, 60, 40))
    image = image if dtype == torch.uint8 else image.float() / 255
    normalise = (lambda x: x.float() / 255) if dtype == torch.uint8 else (lambda x: x)
    batch, targets = transform.prepare([image], [target((20, 10, 60, 40, 1))], normalise)
    resized = fitted_size(Size(80, 50), size, mode)
    assert batch.image_sizes == [(resized.height, resized.width)]
    # The bright box is where the target says.
    bright = (batch.tensors[0].mean(dim=0) > 0.6).numpy()
    rows, columns = np.nonzero(bright)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(targets[0]["boxes"][0].numpy(), found, atol=2)
    detections = [
        {"boxes": targets[0]["boxes"], "scores": torch.ones(1), "labels": torch.ones(1).long()}
    ]
    restored = transform.restore(detections, batch.image_sizes, [(50, 80)])
    torch.testing.assert_close(restored[0]["boxes"], torch.tensor([[20.0, 10, 60, 40]]))


def test_the_callers_targets_are_not_changed():
    transform = InputTransform(size=Size(160, 160), resize="stretch")
    given = [target((1, 2, 3, 4, 1))]
    transform.prepare([picture(80, 80)], given, halve)
    assert given[0]["boxes"].tolist() == [[1, 2, 3, 4]]
