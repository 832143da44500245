"""One image and its objects with masks, whatever format they came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ...core.structures import Size
from .outlines import Outline, Rle


@dataclass(frozen=True)
class InstanceRecord:
    """An image and what says which pixels are which object's.

    annotation: the file that faults name; id: unique in a split; size: as the annotation says, or
    None; labels: int64 [N], class indices from 0; crowd: bool [N] (COCO iscrowd: no targets, and
    no faults of what finds them). The masks, by ``coded``: outlines = ``outlines`` [N]; panoptic =
    pixels of ``annotation`` whose colour is one of ``numbers`` [N]; voc = those of each number in
    ``annotation``, with their class in the picture ``classes`` (labels is empty until it is read).
    """

    image: Path
    annotation: Path
    id: str
    size: Size | None
    labels: np.ndarray
    crowd: np.ndarray
    coded: Literal["outlines", "panoptic", "voc"] = "outlines"
    outlines: tuple[Outline, ...] = ()
    numbers: tuple[int, ...] = ()
    classes: Path | None = None


class Objects(NamedTuple):
    """The objects of an image: run lengths, labels int64 [N] from 0, crowd bool [N], the size."""

    rles: list[Rle]
    labels: np.ndarray
    crowd: np.ndarray
    size: Size

    def some(self, rows: np.ndarray) -> Objects:
        """Those of a mask bool [N]."""
        rles = [rle for rle, kept in zip(self.rles, rows) if kept]
        return Objects(rles, self.labels[rows], self.crowd[rows], self.size)
