"""COCO JSON of instances: annotations with ``segmentation``, polygons or run lengths (RLE)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..boxes.coco import coco_records, load, objects_by_image, size_of
from ..common.faults import Fault
from .outlines import Outline, parse_outline
from .records import InstanceRecord
from .settings import InstanceDataset


class _Object(NamedTuple):
    label: int  # from 1
    crowd: bool
    outline: Outline


def read(
    images: Path, annotations: Path, listed: Path | None, dataset: InstanceDataset
) -> tuple[list[InstanceRecord], list[Fault]]:
    """Read a split from one JSON file. See reader.read_instance_split."""
    content = load(annotations)
    objects, wrong = objects_by_image(content, annotations, dataset.CLASSES, _object)
    records, faults = coco_records(content, images, annotations, listed, objects, _record)
    return records, [*wrong, *faults]


def _object(item: dict[str, Any], label: int) -> _Object:
    return _Object(label, bool(item.get("iscrowd", 0)), parse_outline(item.get("segmentation")))


def _record(
    entry: dict[str, Any], image: Path, path: Path, unique: str, objects: list[_Object]
) -> tuple[InstanceRecord, list[Fault]]:
    size, faults = size_of(entry, path)
    record = InstanceRecord(
        image=image,
        annotation=path,
        id=unique,
        size=size,
        labels=np.array([one.label - 1 for one in objects], np.int64),
        crowd=np.array([one.crowd for one in objects], bool),
        outlines=tuple(one.outline for one in objects),
    )
    return record, faults
