"""What is wrong with a data set: the quick check before training and the full examination."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import UserError
from ...core.structures import Size
from ..common.duplicates import FirstSeen, see_image
from ..common.faults import Fault, report_faults
from ..common.images import image_size_of
from ..common.report import BoxReport, SplitReport
from .records import BoxRecord

log = logging.getLogger(__name__)


_HEADERS = 20_000  # images whose header the quick check reads: 0.1 to 0.2 ms each


def quick_check(
    splits: Mapping[str, Sequence[BoxRecord]],
    faults: Iterable[Fault],
    names: Sequence[str] = (),
    *,
    headers: int = _HEADERS,
) -> list[Fault]:
    """All that needs no image decoded, of split name -> records; ``faults``: read_split's.

    Compares the sizes in the headers of at most ``headers`` images a split (spread evenly) with
    those of the annotations. What was repaired or is doubtful is logged, a line a kind. Returns
    the faults handed in and found.

    Raises UserError with the list when there is an "error" among them.
    """
    faults = list(faults)
    split_of: dict[Path, str] = {}
    for split, records in splits.items():
        faults += check_records(records, names, split)
        step = max(1, -(-len(records) // headers)) if headers else len(records) + 1
        for record in records[::step] if headers else ():
            try:
                faults += check_size(record, image_size_of(record.image))
            except UserError as error:
                faults.append(Fault("unreadable image", record.image, str(error)))
        for record in records:
            earlier = split_of.setdefault(record.image, split)
            if earlier != split:
                detail = f"the image is in {earlier} and in {split}"
                faults.append(Fault(f"duplicate of {earlier}", record.image, detail, "warning"))
    return report_faults(faults)


def check_records(records: Sequence[BoxRecord], names: Sequence[str], split: str) -> list[Fault]:
    """Faults that the records alone show: nothing to learn, empty images, repeated boxes."""
    if not records:
        return [Fault("empty", None, f"the {split} data have no image that can be used")]
    faults = []
    counts: Counter[int] = Counter()
    for record in records:
        where = record.annotation or record.image
        counts.update(record.labels.tolist())
        if not len(record.boxes):
            faults.append(Fault("empty", record.image, "an image without objects", "warning"))
        elif len(record.boxes) > 1:
            rows = np.column_stack([record.boxes, record.labels])
            again = len(rows) - len(np.unique(rows, axis=0))
            if again:
                detail = f"{again} boxes are there twice, with the same class"
                faults.append(Fault("repeated box", where, detail, "warning"))
    if not counts:
        faults.append(Fault("empty", None, f"the {split} data have no object at all"))
    for label, name in enumerate(names):
        if label and not counts[label]:
            faults.append(Fault("class without objects", None, f"'{name}' in {split}", "warning"))
    return faults


def check_size(record: BoxRecord, actual: Size) -> list[Fault]:
    """The annotation's size against the upright image's: an error when boxes are then outside."""
    if record.size is None or record.size == actual:
        return []
    outside = (record.boxes[:, 2:] > np.array(actual) + 0.01).any()
    detail = (
        f"the annotation says {record.size.width}x{record.size.height}, {record.image.name} "
        f"(upright) is {actual.width}x{actual.height}"
        + (", and boxes reach beyond it" if outside else ", which holds all boxes")
    )
    severity: Any = "error" if outside else "warning"
    return [Fault("wrong size", record.annotation or record.image, detail, severity)]


def examine(
    splits: Mapping[str, tuple[Sequence[BoxRecord], Sequence[Fault]]],
    names: Sequence[str],
    workers: int = 4,
) -> BoxReport:
    """Read everything: split name -> (records, faults) as read_split gives them.

    Beside quick_check's: images that cannot be decoded, and identical pictures, within a split
    and between them (compared by their pixels, whatever file they are in).
    """
    report = BoxReport(list(names), {})
    first = FirstSeen()
    for split, (records, given) in splits.items():
        counted = _count(records, len(names))
        counted.faults = [*given, *check_records(records, names, split)]
        for record, size, digest, problem in _read_all(records, split, workers):
            if size is None or digest is None:
                counted.faults.append(Fault("unreadable image", record.image, problem))
                continue
            counted.faults += check_size(record, size)
            again = first.fault(digest, split, record.image)
            counted.faults += [again] if again else []
        report.splits[split] = counted
    return report


def _read_all(
    records: Sequence[BoxRecord], split: str, workers: int
) -> Iterable[tuple[BoxRecord, Size | None, bytes | None, str]]:
    """(record, size, digest of the pixels, "") or (record, None, None, why), in order."""

    def read(record: BoxRecord) -> tuple[BoxRecord, Size | None, bytes | None, str]:
        try:
            return record, *see_image(record.image), ""
        except UserError as error:
            return record, None, None, str(error)

    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(records), 2000):
            if start:
                log.info("%s: %d of %d images read", split, start, len(records))
            yield from pool.map(read, records[start : start + 2000])


def _count(records: Sequence[BoxRecord], classes: int) -> SplitReport:
    objects, images_with = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    for record in records:
        objects += np.bincount(record.labels, minlength=classes)
        images_with[np.unique(record.labels)] += 1
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(record.boxes for record in records)])
    sides = boxes[:, 2:] - boxes[:, :2]
    return SplitReport(len(records), objects.tolist(), images_with.tolist(), sides)
