from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.core.cli import parse
from src.core.errors import UserError
from src.core.structures import Geometry, Size
from src.data.common.loaders import Batch
from src.data.common.shapes import fix_shapes
from src.detection.model import build_detector
from src.detection.scales import MultiScaleLoss, rescaled
from src.detection.settings import TrainDetection


def painted(sizes: list[tuple[int, int]], boxes: list[list[int]]) -> Batch:
    """Black images (h, w) with one white box each, padded to the largest."""
    height, width = (max(side) for side in zip(*sizes))
    images = torch.zeros(len(sizes), 3, height, width, dtype=torch.uint8)
    for image, (left, top, right, bottom) in zip(images, boxes):
        image[:, top:bottom, left:right] = 255
    targets = [{"boxes": torch.tensor([b]).float(), "labels": torch.tensor([1])} for b in boxes]
    geometry = [Geometry(Size(w, h), Size(w, h)) for h, w in sizes]
    return Batch(images, sizes, targets, list(range(len(sizes))), geometry)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.tuples(st.integers(60, 160), st.integers(60, 160)), min_size=1, max_size=3),
    factor=st.floats(0.5, 1.5),
    divisor=st.sampled_from([14, 16, 32]),
)
def test_boxes_bound_their_pixels_at_every_scale(sizes, factor, divisor):
    boxes = [[w // 8, h // 8, w // 8 + w // 2, h // 8 + h // 2] for h, w in sizes]
    before = painted(sizes, boxes)
    after = rescaled(before, factor, divisor)
    assert all(side % divisor == 0 for side in after.images.shape[-2:])
    wanted = [side * factor for side in before.images.shape[-2:]]
    assert np.abs(np.array(after.images.shape[-2:]) - wanted).max() <= divisor
    for image, target, (h, w) in zip(after.image_list(), after.targets, after.sizes):
        assert image.shape == (3, h, w) and image.min() >= 0 and image.max() <= 1 + 1e-5
        rows, columns = (image[0] > 0.5).nonzero(as_tuple=True)
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert (target["boxes"][0] - torch.tensor(seen)).abs().max() <= 1.01
        assert target["boxes"][0, 2] <= w and target["boxes"][0, 3] <= h
    assert before.targets[0]["boxes"].tolist() == [boxes[0]]  # the loader's are left alone


class Seen(torch.nn.Module):
    """Remembers the shapes that it was shown."""

    def forward(self, images, targets):
        self.shapes = {*getattr(self, "shapes", ()), tuple(images[0].shape[1:])}
        return {"loss": images[0].float().mean()}


def test_three_shapes_for_one():
    model, loss = Seen(), MultiScaleLoss(0.25, 32)
    batch = painted([(128, 128)], [[8, 8, 40, 40]])
    for _ in range(40):
        loss(model, batch)
    assert model.shapes == {(96, 96), (128, 128), (160, 160)}


@pytest.mark.parametrize("mode", ["fit", "stretch"])
def test_other_scales_keep_their_size_where_shapes_are_few(mode):
    model, size = build_detector("dinov3_convnext_atto", 3, head="ssd"), Size(640, 640)
    fix_shapes(model, size, mode, torch.device("cuda"))
    before = list(model.canvases)
    assert model.canvas(480, 480) != (480, 480)
    fix_shapes(model, size, mode, torch.device("cuda"), 0.25)
    torch.backends.cudnn.benchmark = False
    assert [model.canvas(*one) for one in before] == before
    for factor in (0.75, 1.25):
        for shape in before:
            scaled = [round(side * factor / 32) * 32 for side in shape]
            high, wide = model.canvas(*scaled)
            assert high * wide <= 1.25 * scaled[0] * scaled[1]


def test_kept_features_have_one_scale():
    with pytest.raises(UserError, match="--multi-scale"):
        parse(TrainDetection, ["--multi-scale", "0.2", "--cache-features"])
