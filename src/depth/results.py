"""What inference writes: depth in colours beside the picture, 16-bit PNG files, and figures.

``depths.json``: ``scale`` (value of one metre in the PNG files) and ``images``, one an image or
frame: id, file_name, width, height, ``depth`` (the PNG beside it; pictures only), and least,
median and most in metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from ..core.files import write_json
from ..data.depths.reader import write_depth
from ..predict.result import Result
from ..predict.results import Made, Report, beside
from ..visualise.depth import draw_depth


class DepthReport(Report):
    """Draws and gathers depth maps (``predict.results.Report``); PNG files go to ``folder``.

    near, far: metres at the ends of the colours (None: of each picture); scale: value of one
    metre in the PNG files.
    """

    files: tuple[str, ...] = ("depths.json",)

    def __init__(
        self, folder: Path, near: float | None, far: float | None, scale: float = 1000.0
    ) -> None:
        self.folder, self.near, self.far, self.scale = folder, near, far, scale
        self._taken: set[str] = set()
        super().__init__()

    def make(self, image: np.ndarray, result: Tensor, info: dict[str, Any]) -> Made:
        """result: the depth float32 [H, W] (metres) of an image of that size; the picture."""
        depth = result.numpy()
        entry = {**info, "width": depth.shape[1], "height": depth.shape[0]}
        if "output" in info:
            entry["depth"] = beside("depths", str(info["output"]), self._taken)
            write_depth(self.folder / entry["depth"], depth, self.scale)
        if saved := self.save_array(info, depth):
            entry["array"] = saved
        entry |= depth_figures(depth)
        return Made(entry, draw_depth(image, depth, self.near, self.far))

    def write(self, folder: str | Path, prefix: str = "") -> None:
        """Write ``depths.json``."""
        self.entries.sort(key=lambda image: image["id"])  # they come by the shape of their input
        content = {"scale": self.scale, "images": self.entries}
        write_json(Path(folder) / f"{prefix}{self.files[0]}", content)


@dataclass
class DepthResult(Result):
    """Depth of an image: metres float32 [H, W] in its pixels; near, far: metres at the ends of the
    colours (None: of each picture)."""

    layer: ClassVar[int] = 3
    metres: np.ndarray
    near: float | None = None
    far: float | None = None

    def draw(self) -> np.ndarray:
        """The image beside its depth in colours."""
        return draw_depth(self.image, self.metres, self.near, self.far)

    def arrays(self) -> dict[str, np.ndarray]:
        """The metres."""
        return {"metres": self.metres}

    def to_dict(self) -> dict[str, Any]:
        """width, height; least, median and most in metres."""
        height, width = self.metres.shape
        return {"width": width, "height": height, **depth_figures(self.metres)}


def depth_figures(metres: np.ndarray) -> dict[str, float]:
    """least, median and most of a map [H, W]."""
    values = {"least": metres.min(), "median": np.median(metres), "most": metres.max()}
    return {name: round(float(value), 4) for name, value in values.items()}
