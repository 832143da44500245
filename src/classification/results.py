"""What inference writes: pictures with their classes, ``classes.json`` and ``classes.csv``.

``classes.json``: ``classes`` (names by index) and ``images``, one an image: id, file_name, width,
height and ``top``, a list of {class, name, probability}, the most probable first. The CSV has a
row an image and rank.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..core.files import atomic_path, write_json
from ..visualise.draw import draw_ranking

CSV_COLUMNS = ("image_id", "file_name", "rank", "class", "name", "probability")


class ClassificationReport:
    """Draws and gathers probabilities (``predict.results.Report``): the ``top`` most probable."""

    files: tuple[str, ...] = ("classes.json", "classes.csv")

    def __init__(self, names: Sequence[str], top: int = 5) -> None:
        self.names, self.top = list(names), min(top, len(names))
        self._images: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return len(self._images)

    def add(self, image: np.ndarray, result: Tensor, info: dict[str, Any]) -> np.ndarray:
        """Keep the probabilities [C] of an image (uint8 [H, W, 3]); the picture with the names."""
        values, labels = result.float().topk(self.top)
        ranking = [
            {"class": label, "name": self.names[label], "probability": round(value, 6)}
            for value, label in zip(values.tolist(), labels.tolist())
        ]
        size = {"width": image.shape[1], "height": image.shape[0]}
        self._images.append({**info, **size, "top": ranking})
        lines = [f"{one['name']} {one['probability']:.2f}" for one in ranking]
        return draw_ranking(image, lines, [label + 1 for label in labels.tolist()])

    def write(self, folder: str | Path, prefix: str = "") -> None:
        """Write both files, each atomically."""
        results, table = (Path(folder) / f"{prefix}{name}" for name in self.files)
        write_json(results, {"classes": self.names, "images": self._images})
        with (
            atomic_path(table) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(CSV_COLUMNS)
            for image in self._images:
                for rank, one in enumerate(image["top"], start=1):
                    writer.writerow([image["id"], image["file_name"], rank, *one.values()])
