from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from src.core.structures import Detections, Size
from src.detection.tiles import join_views, view_windows

SMALL = 24  # pixels: the view of the whole image does not see below


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    width=st.integers(1, 900),
    height=st.integers(1, 900),
    tiles=st.integers(1, 6),
    overlap=st.floats(0, 0.8),
)
def test_windows_cover_the_image(width, height, tiles, overlap):
    windows = view_windows(Size(width, height), tiles, overlap)
    assert windows[0] == (0, 0, width, height) and len(windows) == 1 + tiles * tiles
    seen = np.zeros((height, width), bool)
    for left, top, right, bottom in windows[1:]:
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        seen[top:bottom, left:right] = True
    assert seen.all()
    assert len({(right - left, bottom - top) for left, top, right, bottom in windows[1:]}) == 1


def test_neighbours_share_the_overlap():
    windows = view_windows(Size(1000, 600), 4, 0.25)
    first, second = windows[1], windows[2]
    shared = (first[2] - second[0]) / (first[2] - first[0])
    assert abs(shared - 0.25) < 0.01


def shown(boxes: torch.Tensor, labels: torch.Tensor, window: tuple, least: int) -> Detections:
    """What a perfect detector says of a view: the visible part of each object, surer of the whole
    ones, nothing of objects below ``least`` pixels."""
    left, top, right, bottom = window
    clipped = torch.stack(
        [boxes[:, 0].clamp(left, right), boxes[:, 1].clamp(top, bottom),
         boxes[:, 2].clamp(left, right), boxes[:, 3].clamp(top, bottom)], dim=1,
    )  # fmt: skip
    area = (clipped[:, 2:] - clipped[:, :2]).prod(dim=1)
    share = area / (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    sees = (share > 0.1) & ((boxes[:, 2:] - boxes[:, :2]).amin(dim=1) >= least)
    moved = clipped - torch.tensor([left, top, left, top])
    return {"boxes": moved[sees], "scores": 0.5 + 0.4 * share[sees], "labels": labels[sees]}


@settings(max_examples=80, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), tiles=st.integers(2, 4))
def test_each_object_is_found_once(seed, tiles):
    rng = np.random.default_rng(seed)
    size = Size(800, 600)
    found: list[np.ndarray] = []
    for _ in range(40):
        side = rng.uniform(6, 36, 2) if rng.random() < 0.8 else rng.uniform(150, 400, 2)
        corner = rng.uniform(0, 1, 2) * (np.array(size) - side)
        box = np.concatenate([corner, corner + side]).astype(np.float32)
        apart = [
            b for b in found if (np.minimum(b[2:], box[2:]) > np.maximum(b[:2], box[:2])).all()
        ]
        if not apart:
            found.append(box)
    boxes = torch.from_numpy(np.stack(found))
    labels = torch.from_numpy(rng.integers(1, 3, len(boxes)))
    windows = view_windows(size, tiles, 0.3)
    views = [shown(boxes, labels, w, SMALL if n == 0 else 0) for n, w in enumerate(windows)]
    joined = join_views(views, windows, iou=0.5)
    assert (joined["scores"].diff() <= 0).all()
    assert len(joined["boxes"]) == len(boxes)
    overlap, match = box_iou(boxes, joined["boxes"]).max(dim=1)
    assert (overlap > 0.99).all() and len(set(match.tolist())) == len(boxes)
    assert (joined["labels"][match] == labels).all()


def test_two_objects_that_one_view_tells_apart_stay_two():
    inner, outer = [20.0, 20, 60, 60], [10.0, 10, 90, 90]
    view: Detections = {
        "boxes": torch.tensor([outer, inner]),
        "scores": torch.tensor([0.9, 0.8]),
        "labels": torch.tensor([1, 1]),
    }
    nothing: Detections = {key: value[:0] for key, value in view.items()}  # type: ignore[assignment]
    windows = view_windows(Size(200, 200), 2, 0.2)
    joined = join_views([view, nothing, nothing, nothing, nothing], windows, iou=0.5)
    assert len(joined["boxes"]) == 2
