from __future__ import annotations

import numpy as np
import pytest
import torch

from src.core.structures import Size
from src.data.common.images import fitted_size
from src.detection.transform import InputTransform
from tests.detection.heads.tester import picture, target


def test_an_image_of_the_right_size_is_left_alone():
    transform = InputTransform(size=Size(96, 64), resize="fit")
    for height, width in ((64, 96), (64, 40), (30, 96)):
        image = picture(height, width)
        (same,), targets = transform.apply([image], [target((1, 2, 3, 4, 1))])
        assert same is image
        assert targets[0]["boxes"].tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("mode", ["fit", "stretch"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_targets_follow_the_image_and_detections_come_back(mode, dtype):
    size = Size(160, 120)
    transform = InputTransform(divisor=16, size=size, resize=mode)
    image = picture(50, 80, (20, 10, 60, 40))
    image = image if dtype == torch.uint8 else image.float() / 255
    (moved,), targets = transform.apply([image], [target((20, 10, 60, 40, 1))])
    resized = fitted_size(Size(80, 50), size, mode)
    assert moved.shape[1:] == (resized.height, resized.width) and moved.dtype == dtype
    # The bright box is where the target says.
    light = 255 if dtype == torch.uint8 else 1
    bright = (moved.float().mean(dim=0) > 0.6 * light).numpy()
    rows, columns = np.nonzero(bright)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(targets[0]["boxes"][0].numpy(), found, atol=2)
    detections = [
        {"boxes": targets[0]["boxes"], "scores": torch.ones(1), "labels": torch.ones(1).long()}
    ]
    restored = transform.restore(detections, [tuple(moved.shape[1:])], [(50, 80)])
    torch.testing.assert_close(restored[0]["boxes"], torch.tensor([[20.0, 10, 60, 40]]))


def test_the_callers_targets_are_not_changed():
    transform = InputTransform(size=Size(160, 160), resize="stretch")
    given = [target((1, 2, 3, 4, 1))]
    transform.apply([picture(80, 80)], given)
    assert given[0]["boxes"].tolist() == [[1, 2, 3, 4]]
