"""Masks as COCO's files hold them: polygons, and run lengths (RLE) counted or compressed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core.structures import Size

# {"size": [height, width], "counts": bytes}: run lengths down the columns, compressed
Rle = dict[str, Any]
# Polygons float64 [2 * points] each (x1, y1, x2, y2 ...), or run lengths.
Outline = list[np.ndarray] | Rle
_FAR = 100_000  # pixels: drawing takes memory by the length of an outline


def parse_outline(value: Any) -> Outline:
    """The field ``segmentation`` of a COCO annotation; ValueError says what is wrong with it."""
    if isinstance(value, dict):
        counts, size = value.get("counts"), value.get("size")
        if not isinstance(counts, (str, list)) or not isinstance(size, list) or len(size) != 2:
            raise ValueError("its run lengths have no counts or no size")
        numbers = [*size, *(counts if isinstance(counts, list) else [])]
        if not all(isinstance(one, int) and one >= 0 for one in numbers):
            raise ValueError("its run lengths are not numbers from 0")
        return {"size": size, "counts": counts}
    if not isinstance(value, list) or not value:
        raise ValueError("it has no segmentation")
    try:
        polygons = [np.asarray(part, np.float64).reshape(-1) for part in value]
    except (TypeError, ValueError):
        raise ValueError("a polygon of it is not numbers") from None
    if any(len(part) < 6 or len(part) % 2 for part in polygons):
        raise ValueError("a polygon of it is not three points or more")
    if not all((np.abs(part) < _FAR).all() for part in polygons):  # nor of NaN
        raise ValueError(f"a point of a polygon is not within {_FAR} pixels")
    return polygons


def to_rle(outline: Outline, size: Size) -> Rle:
    """Compressed run lengths in an image of this size, as pycocotools draws polygons. ValueError
    for run lengths of another size."""
    from faster_coco_eval.core import mask as coco

    if isinstance(outline, dict):
        height, width = outline["size"]
        if (width, height) != tuple(size):
            raise ValueError(f"its run lengths are of {width}x{height}")
        counts = outline["counts"]
        if isinstance(counts, list):
            if sum(counts) != width * height:
                raise ValueError(f"its run lengths make {sum(counts)} of {width * height} pixels")
            return coco.frPyObjects(outline, height, width)
        rle = {**outline, "counts": counts.encode() if isinstance(counts, str) else counts}
        coco.decode([rle])  # fails where they make another number of pixels
        return rle
    drawn = coco.frPyObjects([part.tolist() for part in outline], size.height, size.width)
    return coco.merge(drawn)


def from_rles(rles: Sequence[Rle], size: Size) -> np.ndarray:
    """uint8 [N, H, W] of 0 and 1."""
    from faster_coco_eval.core import mask as coco

    if not rles:
        return np.zeros((0, size.height, size.width), np.uint8)
    return np.ascontiguousarray(coco.decode(list(rles)).transpose(2, 0, 1))


def to_rles(masks: np.ndarray) -> list[Rle]:
    """Compressed run lengths of masks [N, H, W]."""
    from faster_coco_eval.core import mask as coco

    if not len(masks):
        return []
    return coco.encode(np.asfortranarray(masks.astype(np.uint8).transpose(1, 2, 0)))


def mask_areas(rles: Sequence[Rle]) -> np.ndarray:
    """Pixels of each, float64 [N]."""
    from faster_coco_eval.core import mask as coco

    return np.asarray(coco.area(list(rles)), np.float64).reshape(-1) if rles else np.zeros(0)


def mask_boxes(rles: Sequence[Rle]) -> np.ndarray:
    """float64 [N, 4] xyxy, x2 and y2 exclusive."""
    from faster_coco_eval.core import mask as coco

    if not rles:
        return np.zeros((0, 4))
    found = np.asarray(coco.toBbox(list(rles)), np.float64).reshape(-1, 4)
    return np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1)


def as_text(rle: Rle) -> Rle:
    """The same with counts as text, as JSON holds it."""
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}
