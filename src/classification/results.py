"""What inference writes: pictures with their classes, ``classes.json`` and ``classes.csv``.

``classes.json``: ``classes`` (names by index) and ``images``, one an image: id, file_name, width,
height and ``top``, a list of {class, name, probability}, the most probable first. The CSV has a
row an image and rank.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from ..core.files import atomic_path, write_json
from ..predict.result import Result, require_supervision
from ..predict.results import Made, Report
from ..visualise.draw import draw_ranking

CSV_COLUMNS = ("image_id", "file_name", "rank", "class", "name", "probability")


class ClassificationReport(Report):
    """Draws and gathers probabilities (``predict.results.Report``): the ``top`` most probable."""

    files: tuple[str, ...] = ("classes.json", "classes.csv")

    def __init__(self, names: Sequence[str], top: int = 5) -> None:
        self.names, self.top = list(names), min(top, len(names))
        super().__init__()

    def make(self, image: np.ndarray, result: Tensor, info: dict[str, Any]) -> Made:
        """result: the probabilities [C] of an image; the picture with the names."""
        found = ClassificationResult(image, self.names, result.float().numpy())
        ranking = found.top(self.top)
        size = {"width": image.shape[1], "height": image.shape[0]}
        saved = self.save_array(info, found.probabilities)
        array = {"array": saved} if saved else {}
        return Made({**info, **size, **array, "top": ranking}, draw_top(image, ranking))

    def write(self, folder: str | Path, prefix: str = "") -> None:
        """Write both files, each atomically."""
        results, table = (Path(folder) / f"{prefix}{name}" for name in self.files)
        self.entries.sort(key=lambda image: image["id"])  # they come by the shape of their input
        write_json(results, {"classes": self.names, "images": self.entries})
        with (
            atomic_path(table) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(CSV_COLUMNS)
            for image in self.entries:
                for rank, one in enumerate(image["top"], start=1):
                    writer.writerow([image["id"], image["file_name"], rank, *one.values()])


@dataclass
class ClassificationResult(Result):
    """Classes of an image: probabilities float32 [C] (multi-label: each for itself)."""

    layer: ClassVar[int] = 2
    probabilities: np.ndarray

    def top(self, count: int = 5) -> list[dict[str, Any]]:
        """The most probable classes first: {class, name, probability}."""
        order = np.argsort(-self.probabilities, kind="stable")[:count].tolist()
        return [
            {
                "class": i,
                "name": self.names[i],
                "probability": round(float(self.probabilities[i]), 6),
            }
            for i in order
        ]

    def draw(self) -> np.ndarray:
        """The image with the names of its five most probable classes."""
        return draw_top(self.image, self.top())

    def draw_over(self, picture: np.ndarray) -> np.ndarray:
        """See Result; in the lower left corner, where no legend of classes is."""
        return draw_top(picture, self.top(), low=True)

    def arrays(self) -> dict[str, np.ndarray]:
        """The probabilities."""
        return {"probabilities": self.probabilities}

    def to_dict(self) -> dict[str, Any]:
        """top: the five most probable classes."""
        return {"top": self.top()}

    def to_supervision(self) -> Any:
        """As ``supervision.Classifications``."""
        return require_supervision().Classifications(
            class_id=np.arange(len(self.names)), confidence=self.probabilities
        )


def draw_top(image: np.ndarray, ranking: Sequence[dict[str, Any]], low: bool = False) -> np.ndarray:
    """The image with a line for each of ``top``'s entries (see ``draw_ranking``)."""
    lines = [f"{one['name']} {one['probability']:.2f}" for one in ranking]
    return draw_ranking(image, lines, [one["class"] + 1 for one in ranking], low)
