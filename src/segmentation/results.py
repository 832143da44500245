"""What inference writes: overlays, grey PNGs of class indices, and the share of each class.

``segments.json``: ``classes`` (names by index) and ``images``, one an image or frame: id,
file_name, width, height, ``mask`` (the PNG beside it, whose values are class indices; pictures
only), and ``shares``: name -> share of the image's pixels, those that occur, largest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from ..core.files import write_json
from ..data.masks.reader import write_mask
from ..predict.result import Result, require_supervision
from ..predict.results import Made, Report, beside
from ..visualise.draw import colour_table, draw_classes, draw_legend


class SegmentationReport(Report):
    """Draws and gathers class maps (``predict.results.Report``); masks go to ``folder``.

    colours: [R, G, B] of each class, or None; opacity: of the colours in the overlay; legend:
    whether it names them.
    """

    files: tuple[str, ...] = ("segments.json",)

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        colours: Sequence[tuple[int, int, int]] | None,
        opacity: float = 0.55,
        legend: bool = True,
    ) -> None:
        self.folder, self.names, self.opacity = folder, list(names), opacity
        self.legend = legend
        self.colours = colour_table(len(self.names), colours)
        self._taken: set[str] = set()
        super().__init__()

    def make(self, image: np.ndarray, result: Tensor, info: dict[str, Any]) -> Made:
        """result: a class map uint8 [H, W] of an image of that size, or the probabilities of its
        classes [C, H, W]; the overlay."""
        several = result.ndim == 3
        mask = (result.argmax(dim=0).byte() if several else result).numpy()
        entry = {**info, "width": mask.shape[1], "height": mask.shape[0]}
        if "output" in info:
            entry["mask"] = beside("masks", str(info["output"]), self._taken)
            write_mask(self.folder / entry["mask"], mask)
        array = result.half().numpy() if several else mask
        if saved := self.save_array(info, array, "npz" if several else "npy"):
            entry["array"] = saved
        entry["shares"] = class_shares(mask, self.names)
        names = self.names if self.legend else []
        return Made(entry, draw_named(image, mask, names, self.colours, self.opacity))

    def result(self, image: np.ndarray, mask: Tensor) -> SegmentationResult:
        """A class map as Python gets it."""
        look = self.colours, self.opacity, self.legend
        return SegmentationResult(image, self.names, mask.numpy(), *look)

    def write(self, folder: str | Path, prefix: str = "") -> None:
        """Write ``segments.json``."""
        self.entries.sort(key=lambda image: image["id"])  # they come by the shape of their input
        content = {"classes": self.names, "images": self.entries}
        write_json(Path(folder) / f"{prefix}{self.files[0]}", content)


@dataclass
class SegmentationResult(Result):
    """Classes of an image: mask uint8 [H, W], indices of names; colours: uint8 [256, 3]."""

    layer: ClassVar[int] = 0
    mask: np.ndarray
    colours: np.ndarray
    opacity: float = 0.55
    legend: bool = True

    def draw(self) -> np.ndarray:
        """The image under the colours of its classes, with a legend of those that occur."""
        names = self.names if self.legend else []
        return draw_named(self.image, self.mask, names, self.colours, self.opacity)

    def arrays(self) -> dict[str, np.ndarray]:
        """The mask."""
        return {"mask": self.mask}

    def to_dict(self) -> dict[str, Any]:
        """width, height, and shares as ``class_shares``."""
        height, width = self.mask.shape
        return {"width": width, "height": height, "shares": class_shares(self.mask, self.names)}

    def to_supervision(self) -> Any:
        """One mask a class that occurs, its box around it."""
        supervision = require_supervision()
        classes = np.unique(self.mask)
        masks = self.mask[None] == classes[:, None, None]
        return supervision.Detections(
            xyxy=supervision.mask_to_xyxy(masks),
            mask=masks,
            class_id=classes.astype(int),
            data={"class_name": np.array([self.names[index] for index in classes])},
        )


def draw_named(
    image: np.ndarray,
    mask: np.ndarray,
    names: Sequence[str],
    colours: np.ndarray,
    opacity: float = 0.55,
) -> np.ndarray:
    """``draw_classes``, with a legend of those of the classes ``names`` that occur."""
    picture = draw_classes(image, mask, colours, opacity)
    there = np.flatnonzero(np.bincount(mask.reshape(-1), minlength=len(names))[: len(names)])
    draw_legend(picture, [names[index] for index in there.tolist()], colours[there])
    return picture


def class_shares(mask: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """name -> share of the pixels of a mask uint8 [H, W]: those that occur, largest first."""
    counts = np.bincount(mask.reshape(-1), minlength=len(names))
    order = [index for index in np.argsort(-counts, kind="stable").tolist() if counts[index]]
    return {names[index]: round(float(counts[index] / mask.size), 6) for index in order}
