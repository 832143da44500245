"""One annotated image, whatever format it came from, its boxes made valid."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...core.errors import UserError
from ...core.registry import did_you_mean
from ...core.structures import Size
from ..common.faults import Fault
from ..common.images import image_size_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BoxRecord:
    """One image and its boxes. Images without objects have N = 0.

    boxes: float32 [N, 4] xyxy, x2 and y2 exclusive, in pixels of the upright (EXIF applied)
    image; labels: int64 [N] from 1; difficult, crowd: bool [N] (VOC, COCO iscrowd); size: as
    the annotation says, or None; id: the stem of the image, unique in a split.
    """

    image: Path
    annotation: Path | None
    id: str
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray
    size: Size | None


def make_record(
    image: Path,
    annotation: Path | None,
    id: str,  # noqa: A002 - the field's name
    objects: Sequence[tuple[float, float, float, float, int, bool, bool]],
    size: Size | None,
) -> tuple[BoxRecord | None, list[Fault]]:
    """A record of objects (x1, y1, x2, y2, label, difficult, crowd), boxes made valid.

    A box over the edge of the image is clipped; one of no area, or not in the image at all, is
    dropped; each is a Fault of severity "repaired". A coordinate that is not a finite number is
    an "error". The image's header is read only when there is no ``size``, or a box beyond it.
    """
    where = annotation or image
    table = np.array([o[:4] for o in objects], np.float64).reshape(-1, 4)
    bounds = size
    if bounds is None or (table[:, 2:] > bounds).any():
        try:
            bounds = image_size_of(image)
        except UserError as error:
            return None, [Fault("unreadable image", image, str(error))]
    finite = np.asarray(np.isfinite(table).all(axis=1))
    area = np.asarray((table[:, 2:] > table[:, :2]).all(axis=1))
    clipped = table.clip(0, [*bounds, *bounds])
    inside = np.asarray((clipped[:, 2:] > clipped[:, :2]).all(axis=1))
    keep = finite & area & inside
    over = np.asarray((np.abs(clipped - table) > 0.01).any(axis=1))  # less is rounding
    faults: list[Fault] = []
    for row in np.flatnonzero(~keep | over):
        shown = "box " + " ".join(f"{value:g}" for value in table[row])
        within = f"{shown} in {bounds.width}x{bounds.height}"
        if not finite[row]:
            faults.append(Fault("bad number", where, shown))
        elif not area[row]:
            faults.append(Fault("box without area", where, f"{shown}: dropped", "repaired"))
        elif not inside[row]:
            faults.append(Fault("box outside", where, f"{within}: dropped", "repaired"))
        else:
            faults.append(Fault("box over the edge", where, f"{within}: clipped", "repaired"))
    flags = np.array([o[4:] for o in objects], np.int64).reshape(-1, 3)[keep]
    record = BoxRecord(
        image=image,
        annotation=annotation,
        id=id,
        boxes=clipped[keep].astype(np.float32),
        labels=flags[:, 0],
        difficult=flags[:, 1].astype(bool),
        crowd=flags[:, 2].astype(bool),
        size=size,
    )
    return record, faults


def select(record: BoxRecord, keep: np.ndarray) -> BoxRecord:
    """The record with the boxes of the mask ``keep`` (bool [N]) only."""
    return replace(
        record,
        boxes=record.boxes[keep],
        labels=record.labels[keep],
        difficult=record.difficult[keep],
        crowd=record.crowd[keep],
    )


def unknown_class(name: str, names: Sequence[str], where: Path) -> Fault:
    """The Fault of a class that CLASSES lacks."""
    hint = did_you_mean(name, names[1:])
    return Fault("unknown class", where, f"'{name}' is not among the YAML's CLASSES{hint}")
