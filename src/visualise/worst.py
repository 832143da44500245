"""A sheet of the images that an evaluation went worst on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.common.images import write_image
from .draw import contact_sheet


def draw_worst(
    worst: Sequence[int],
    rows: Mapping[int, Mapping[str, Any]],
    paths: Sequence[Path],
    draw: Callable[[int], list[np.ndarray]],
    path: Path,
) -> None:
    """worst: positions of images, the worst first; rows: what images.csv says of each, its
    caption; paths: of all; draw(index): the pictures of one, truth before prediction. Nothing is
    written when there is none."""
    pictures: list[np.ndarray] = []
    captions: list[str] = []
    for index in worst:
        drawn = draw(index)
        said = ", ".join(f"{n} {v}" for n, v in rows[index].items() if v not in (0, ""))
        words = [paths[index].name, *[""] * (len(drawn) - 2), said]
        pictures += drawn
        captions += words if len(drawn) > 1 else [said]
    if pictures:
        columns = max(len(pictures) // len(worst), 1)
        sheet = contact_sheet(pictures, columns if columns > 1 else 3, captions, cell=480)
        write_image(path, sheet)
