"""Sliced inference (https://arxiv.org/abs/2202.06934): small objects are looked for in tiles of an
image, large ones in the whole of it, and what several views found is one detection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_area

from ..core.structures import Detections, Size
from ..predict.predictor import Pending, Predictor, Prepared

Window = tuple[int, int, int, int]

EDGE = 2.0  # pixels of the image: nearer to a border that is only the tile's, an object is cut
COVERED = 0.6  # of the smaller of two boxes of different views, from which on they are one object
LIMIT = 300  # detections of an image


class TiledPredictor(Predictor[Detections]):
    """A detector's predictor that looks at the whole image and at tiles x tiles parts of it.

    overlap: share of a tile that its neighbour shows as well. ``batch`` counts images; all views
    of them go through the model together.
    """

    def __init__(self, *args: Any, tiles: int, overlap: float, nms: float, **how: Any) -> None:
        super().__init__(*args, **how)
        self.tiles, self.overlap, self.nms = tiles, overlap, nms
        self.views = 1 + tiles * tiles
        self.batch = max(1, self.batch // self.views)

    def prepare(self, images: Sequence[np.ndarray]) -> Prepared:
        """Every view of every image."""
        views = [
            np.ascontiguousarray(image[top:bottom, left:right])
            for image in images
            for left, top, right, bottom in self._windows(Size(image.shape[1], image.shape[0]))
        ]
        return super().prepare(views)

    def collect(self, pending: Pending) -> list[Detections]:
        """The views' detections joined, for each image in its pixels."""
        found = super().collect(pending)
        joined = []
        for start in range(0, len(found), self.views):
            size = pending.geometries[start].original  # the first view is the whole image
            views = found[start : start + self.views]
            joined.append(join_views(views, self._windows(size), iou=self.nms))
        return joined

    def _windows(self, size: Size) -> list[Window]:
        return view_windows(size, self.tiles, self.overlap)


def view_windows(size: Size, tiles: int, overlap: float) -> list[Window]:
    """(left, top, right, bottom): the whole image, then tiles x tiles of one size, row by row;
    each shares ``overlap`` of its sides with the next, rounding aside."""
    columns, rows = (_starts(side, tiles, overlap) for side in size)
    parts = [(left, top, right, bottom) for top, bottom in rows for left, right in columns]
    return [(0, 0, size.width, size.height), *parts]


def _starts(side: int, tiles: int, overlap: float) -> list[tuple[int, int]]:
    """First and last pixel (exclusive) of the tiles of one axis."""
    length = min(side, max(1, int(np.ceil(side / (tiles - (tiles - 1) * overlap)))))
    starts = np.linspace(0, side - length, tiles).round().astype(int).tolist()
    return [(start, start + length) for start in starts]


def join_views(found: Sequence[Detections], windows: Sequence[Window], *, iou: float) -> Detections:
    """Detections of views (the whole image first) in their own pixels -> of the image, best first.

    What touches a border that only its tile has is a part of an object: another view shows it
    whole. Then the best of each class go before those of *other* views that they cover by
    ``COVERED`` of the smaller, or by an IoU of ``iou`` (within a view NMS has been).
    """
    _, _, width, height = windows[0]
    boxes, scores, labels, views = [], [], [], []
    for number, (one, (left, top, right, bottom)) in enumerate(zip(found, windows, strict=True)):
        moved = one["boxes"] + one["boxes"].new_tensor([left, top, left, top])
        cut = torch.zeros(len(moved), dtype=torch.bool)
        for edge, side, own in ((left, 0, 0), (top, 1, 0), (right, 2, width), (bottom, 3, height)):
            if edge != own:
                cut |= (moved[:, side] - edge).abs() < EDGE
        boxes.append(moved[~cut])
        scores.append(one["scores"][~cut])
        labels.append(one["labels"][~cut])
        views.append(torch.full((int((~cut).sum()),), number))
    box, score, label, view = (torch.cat(part) for part in (boxes, scores, labels, views))
    order = score.argsort(descending=True, stable=True)
    box, score, label, view = box[order], score[order], label[order], view[order]
    kept = _best(box, label, view, iou)[:LIMIT]
    return {"boxes": box[kept], "scores": score[kept], "labels": label[kept]}


def _best(boxes: Tensor, labels: Tensor, views: Tensor, iou: float) -> Tensor:
    """Places of those that no better one of their class and another view stands for."""
    low = torch.maximum(boxes[:, None, :2], boxes[:, :2])
    shared = (torch.minimum(boxes[:, None, 2:], boxes[:, 2:]) - low).clamp(min=0).prod(dim=2)
    area = box_area(boxes)
    smaller = torch.minimum(area[:, None], area)
    same = (shared > COVERED * smaller) | (shared > iou * (area[:, None] + area - shared))
    same &= (labels[:, None] == labels) & (views[:, None] != views)
    rivals = same.numpy()
    kept: list[int] = []
    for row in range(len(boxes)):
        if not rivals[row, kept].any():
            kept.append(row)
    return torch.tensor(kept, dtype=torch.int64)
