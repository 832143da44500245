"""YOLO's text files of instances: a line an object, ``class x1 y1 x2 y2 x3 y3 ...``, one polygon in
fractions of the image (https://docs.ultralytics.com/datasets/segment/)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...core.structures import Size
from ..boxes.yolo import Line, yolo_records
from ..common.faults import Fault
from .records import InstanceRecord
from .settings import InstanceDataset


def read(
    images: Path, annotations: Path, listed: Path | None, dataset: InstanceDataset
) -> tuple[list[InstanceRecord], list[Fault]]:
    """Read a split: pairs by stem. See reader.read_instance_split."""
    return yolo_records(images, annotations, listed, dataset.CLASSES, _record)


def _record(
    image: Path, text: Path | None, size: Size, lines: list[Line]
) -> tuple[InstanceRecord, list[Fault]]:
    outlined = [(label, values) for label, values in lines if len(values) > 4]
    faults = []
    if len(outlined) < len(lines):
        detail = f"{len(lines) - len(outlined)} of {len(lines)} objects are boxes without outline"
        faults.append(Fault("box without outline", text, detail))
    record = InstanceRecord(
        image=image,
        annotation=text or image,
        id=image.stem,
        size=size,
        labels=np.array([label - 1 for label, _ in outlined], np.int64),
        crowd=np.zeros(len(outlined), bool),
        outlines=tuple([np.array(v) * np.tile(size, len(v) // 2)] for _, v in outlined),
    )
    return record, faults
