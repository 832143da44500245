"""The full examination of a data set of objects: every image and mask read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from ...core.errors import UserError
from ...core.structures import Size
from ..common.duplicates import FirstSeen, see_image
from ..common.faults import Fault
from ..common.report import BoxReport, SplitReport
from . import outlines
from .reader import InstanceReader, without_pixel
from .records import InstanceRecord, Objects


class _Seen(NamedTuple):
    """What was found for a record: its picture's size and digest, its objects, a fault."""

    size: Size | None
    digest: bytes | None
    objects: Objects | None
    fault: Fault | None


def examine_instances(
    splits: Mapping[str, tuple[Sequence[InstanceRecord], Sequence[Fault]]],
    reader: InstanceReader,
    workers: int = 4,
) -> BoxReport:
    """Read everything: split name -> (records, faults) as ``read_instance_split`` gives them.

    Finds pictures and masks that cannot be read, sizes that differ, objects without a pixel or
    there twice, classes that a split lacks, identical pictures. The sizes are those of the boxes
    around the masks.
    """
    names = ["__background__", *reader.dataset.names]
    report = BoxReport(names, {})
    first = FirstSeen()
    for split, (records, given) in splits.items():
        objects, images_with = np.zeros((2, len(names)), np.int64)
        sides = [np.zeros((0, 2))]
        faults = list(given)
        with ThreadPoolExecutor(workers) as pool:
            for record, seen in zip(records, pool.map(lambda r: _see(r, reader), records)):
                faults += [seen.fault] if seen.fault else []
                if seen.digest is not None:
                    again = first.fault(seen.digest, split, record.image)
                    faults += [again] if again else []
                if seen.objects is None:
                    continue
                labels = seen.objects.labels + 1
                objects += np.bincount(labels, minlength=len(names))
                images_with[np.unique(labels)] += 1
                boxes = outlines.mask_boxes(seen.objects.rles)
                sides.append(boxes[:, 2:] - boxes[:, :2])
                faults += _repeated(record, seen.objects)
        faults += [
            Fault("class without objects", None, f"'{name}' in {split}", "warning")
            for name, count in zip(names[1:], objects[1:])
            if not count
        ]
        if not objects.any():
            faults.append(Fault("empty", None, f"the {split} data have no object at all"))
        report.splits[split] = SplitReport(
            len(records), objects.tolist(), images_with.tolist(), np.concatenate(sides), faults
        )
    return report


def _see(record: InstanceRecord, reader: InstanceReader) -> _Seen:
    try:
        size, digest = see_image(record.image)
    except UserError as error:
        return _Seen(None, None, None, Fault("unreadable image", record.image, str(error)))
    if record.size is not None and record.size != size:
        detail = f"{record.annotation.name} says {record.size.width}x{record.size.height}, "
        detail += f"{record.image.name} (upright) is {size.width}x{size.height}"
        return _Seen(size, digest, None, Fault("wrong size", record.image, detail))
    try:
        objects = reader.of(record, size)
        return _Seen(size, digest, objects, without_pixel(record, objects))
    except UserError as error:
        return _Seen(size, digest, None, Fault("bad mask", record.annotation, str(error)))


def _repeated(record: InstanceRecord, objects: Objects) -> list[Fault]:
    known = {(rle["counts"], label) for rle, label in zip(objects.rles, objects.labels.tolist())}
    again = len(objects.rles) - len(known)
    if not again:
        return []
    detail = f"{again} masks are there twice, with the same class"
    return [Fault("repeated mask", record.image, detail, "warning")]
