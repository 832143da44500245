"""COCO's panoptic format (https://cocodataset.org/#format-data): a JSON, and beside it a folder of
its name with a PNG an image, whose colours are the numbers of segments (R + 256 G + 256^2 B)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...core.errors import UserError
from ..boxes.coco import coco_records, labels_of, load, size_of
from ..common.faults import Fault
from .records import InstanceRecord
from .settings import InstanceDataset


class _Segment(NamedTuple):
    label: int  # from 1
    crowd: bool
    number: int


class _Picture(NamedTuple):
    png: str
    segments: list[_Segment]


def read(
    images: Path, annotations: Path, listed: Path | None, dataset: InstanceDataset
) -> tuple[list[InstanceRecord], list[Fault]]:
    """Read a split from a JSON and its PNGs. See reader.read_instance_split."""
    content = load(annotations)
    folder = annotations.with_suffix("")
    if not folder.is_dir():
        raise UserError(
            f"no such folder: {folder}; the PNGs of {annotations.name} lie in a folder of its name"
        )
    faults = _kinds(content["categories"], annotations, dataset)
    pictures, wrong = _pictures(content, annotations, dataset)
    faults += wrong

    def record(
        entry: dict[str, Any], image: Path, path: Path, unique: str, found: list[_Picture]
    ) -> tuple[InstanceRecord | None, list[Fault]]:
        png = folder / found[0].png if found else folder
        if not png.is_file():
            return None, [Fault("missing annotation", image, f"no PNG of it in {folder}")]
        size, wrong = size_of(entry, path)
        segments = found[0].segments
        made = InstanceRecord(
            image=image,
            annotation=png,
            id=unique,
            size=size,
            labels=np.array([one.label - 1 for one in segments], np.int64),
            crowd=np.array([one.crowd for one in segments], bool),
            coded="panoptic",
            numbers=tuple(one.number for one in segments),
        )
        return made, wrong

    records, wrong = coco_records(content, images, annotations, listed, pictures, record)
    return records, [*faults, *wrong]


def _pictures(
    content: dict[str, list[dict[str, Any]]], path: Path, dataset: InstanceDataset
) -> tuple[dict[Any, list[_Picture]], list[Fault]]:
    """image id -> the one PNG of it."""
    label_of = labels_of(content, dataset.CLASSES)
    found: dict[Any, list[_Picture]] = {}
    strangers: dict[str, int] = {}
    faults = []
    for item in content["annotations"]:
        segments = []
        for one in item.get("segments_info", []):
            name, label = label_of(one.get("category_id"))
            number = one.get("id")
            if label is None:
                strangers[name] = strangers.get(name, 0) + 1
            elif not isinstance(number, int):
                detail = f"a segment of {item.get('file_name')} has the id {number!r}"
                faults.append(Fault("bad number", path, detail))
            else:
                segments.append(_Segment(label, bool(one.get("iscrowd", 0)), number))
        picture = _Picture(str(item.get("file_name", "")), segments)
        found.setdefault(item.get("image_id"), []).append(picture)
    faults += [
        Fault("unknown class", path, f"'{name}' is not among the YAML's CLASSES ({count} segments)")
        for name, count in strangers.items()
    ]
    return found, faults


def _kinds(categories: list[dict[str, Any]], path: Path, dataset: InstanceDataset) -> list[Fault]:
    """What STUFF_CLASSES and the file's ``isthing`` say differently."""
    stuff = {str(c.get("name")) for c in categories if c.get("isthing") == 0}
    things = {str(c.get("name")) for c in categories if c.get("isthing") == 1}
    said = set(dataset.STUFF_CLASSES)
    wrong = sorted((stuff & set(dataset.names)) - said) + sorted(things & said)
    if not wrong:
        return []
    detail = f"the file and STUFF_CLASSES differ on {', '.join(wrong[:5])}"
    return [Fault("thing or stuff", path, detail + (", ..." if len(wrong) > 5 else ""))]
