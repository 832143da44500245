"""Contact sheets of what a data set holds: pictures under their boxes, masks, classes, depths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from ..core.errors import UserError
from ..core.structures import Size
from ..data.boxes.records import BoxRecord
from ..data.boxes.transforms import scale_boxes
from ..data.common.images import read_image, read_picture, resize
from ..data.depths.reader import DepthRecord, read_depth
from ..data.depths.settings import DepthDataset
from ..data.depths.transforms import resize_depth
from ..data.labels.reader import LabelRecord
from ..data.masks.reader import MaskReader, MaskRecord
from ..data.masks.transforms import resize_mask
from .depth import depth_range, draw_depth
from .draw import (
    colour_table,
    contact_sheet,
    draw_classes,
    draw_detections,
    draw_ranking,
    legend_below,
)
from .samples import spread

R = TypeVar("R")

SIDE = 400  # pixels of the longer side of a cell
_LABELLED_SIDE = 240  # of one that shows nothing but a word


def sheet(
    records: Sequence[R], count: int, draw: Callable[[R], np.ndarray], columns: int = 0
) -> np.ndarray | None:
    """``draw`` of ``count`` records spread over the split as one picture (uint8 [H, W, 3]); those
    that cannot be read are passed over (they are in the report); None when nothing is left."""
    tiles = []
    for index in spread(len(records), count):
        try:
            tiles.append(draw(records[index]))
        except UserError:
            continue
    return contact_sheet(tiles, columns or max(1, round(len(tiles) ** 0.5))) if tiles else None


def box_samples(
    records: Sequence[BoxRecord], names: Sequence[str], count: int
) -> np.ndarray | None:
    """Images with their boxes and class names."""

    def draw(record: BoxRecord) -> np.ndarray:
        image, geometry = resize(read_image(record.image), Size(SIDE, SIDE), "fit")
        return draw_detections(image, scale_boxes(record.boxes, geometry), record.labels, names)

    return sheet(records, count, draw)


def mask_samples(
    records: Sequence[MaskRecord], reader: MaskReader, count: int
) -> np.ndarray | None:
    """Images under the colours of their classes, and a legend."""
    names = reader.dataset.names
    colours = colour_table(len(names), reader.dataset.colours)

    def draw(record: MaskRecord) -> np.ndarray:
        image, geometry = resize(reader.picture(record), Size(SIDE, SIDE), "fit")
        mask = resize_mask(reader.of(record, geometry.original), geometry.resized)
        return draw_classes(image, mask, colours)

    drawn = sheet(records, count, draw)
    return drawn if drawn is None else legend_below(drawn, names, colours)


def label_samples(
    records: Sequence[LabelRecord], names: Sequence[str], count: int, channels: int = 3
) -> np.ndarray | None:
    """Images with the names of their classes, as many of each class as there is room for."""

    def draw(record: LabelRecord) -> np.ndarray:
        whole = read_picture(record.image, channels)
        image, _ = resize(whole, Size(_LABELLED_SIDE, _LABELLED_SIDE), "fit")
        lines = [names[label] for label in record.labels] or ["(no class)"]
        # Colour 0 of the drawing is the background's.
        return draw_ranking(image, lines, [label + 1 for label in record.labels] or [0])

    by_class = sorted(records, key=lambda record: record.labels)
    return sheet(by_class, count, draw)


def depth_samples(
    records: Sequence[DepthRecord], dataset: DepthDataset, count: int
) -> np.ndarray | None:
    """Images beside their depths, each with the metres of its colours; black: not measured."""

    def draw(record: DepthRecord) -> np.ndarray:
        whole = read_image(record.image)
        depth = read_depth(record.depth, dataset, Size(whole.shape[1], whole.shape[0]))
        image, geometry = resize(whole, Size(SIDE, SIDE), "fit")
        return draw_depth(image, resize_depth(depth, geometry.resized), *depth_range(depth))

    return sheet(records, count, draw, columns=max(1, round((count / 2) ** 0.5)))
