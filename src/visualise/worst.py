"""Which images an evaluation went worst on: a table of all, a sheet of the worst."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.files import atomic_path
from ..data.common.images import write_image
from .draw import contact_sheet

MOST = 12  # images of the sheet


def write_worst(
    rows: Sequence[Mapping[str, Any]],
    badness: Sequence[float],
    draw: Callable[[int], list[np.ndarray]],
    folder: Path,
) -> None:
    """``images.csv``, a row an image, and ``worst.jpg``, both the worst first.

    rows: of the images, "file" first; badness: their order; draw(index): the pictures of an image
    side by side, truth before prediction (the first gets the file's name, the last its row).
    """
    order = sorted(range(len(rows)), key=lambda index: -badness[index])
    with (
        atomic_path(folder / "images.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows[index] for index in order)
    pictures: list[np.ndarray] = []
    captions: list[str] = []
    for index in order[:MOST]:
        drawn = draw(index)
        said = [f"{n} {v}" for n, v in rows[index].items() if n != "file" and v not in (0, "")]
        pictures += drawn
        captions += [Path(rows[index]["file"]).name, *[""] * (len(drawn) - 1)]
        captions[-1] = (captions[-1] + " " if len(drawn) == 1 else "") + ", ".join(said)
    columns = len(pictures) // max(1, len(order[:MOST]))
    sheet = contact_sheet(pictures, columns if columns > 1 else 4, captions, cell=480)
    write_image(folder / "worst.jpg", sheet)
