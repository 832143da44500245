"""The full examination of a segmentation data set: every mask read, pixels counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ...core.errors import UserError
from ...core.structures import IGNORE, Size
from ..common.duplicates import FirstSeen, see_image
from ..common.faults import Fault
from ..common.report import FullReport, fault_values, size_table, text_table
from .reader import MaskReader, MaskRecord


@dataclass
class MaskSplitReport:
    """One split. pixels, images_with: int64 [C + 1], those without a class last;
    sizes: how many pairs have each size."""

    images: int
    pixels: np.ndarray
    images_with: np.ndarray
    sizes: dict[Size, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


class MaskReport(FullReport[MaskSplitReport]):
    """Of a segmentation data set."""

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, each fault included."""
        return {
            split: {
                "images": part.images,
                "pixels": dict(zip(self.names, part.pixels.tolist())),
                "pixels_without_class": int(part.pixels[-1]),
                "images_with": dict(zip(self.names, part.images_with.tolist())),
                "sizes": {f"{size.width}x{size.height}": n for size, n in part.sizes.items()},
                "faults": fault_values(part.faults),
            }
            for split, part in self.splits.items()
        }

    def _classes(self) -> str:
        heads = [f"{s} {what}" for s in self.splits for what in ("pixels", "%", "images")]
        rows = [["class", *heads]]
        for index, name in enumerate([*self.names, "(without a class)"]):
            row = [name]
            for part in self.splits.values():
                share = 100 * part.pixels[index] / max(1, part.pixels.sum())
                counts = part.pixels[index], part.images_with[index]
                row += [str(counts[0]), f"{share:.2f}", str(counts[1])]
            rows.append(row)
        return text_table(rows)

    def _sizes(self) -> str:
        return size_table({split: part.sizes for split, part in self.splits.items()})


class _Seen(NamedTuple):
    """What was found in a pair: its size, pixels of each class, and a digest of the picture."""

    size: Size | None
    pixels: np.ndarray | None
    digest: bytes | None
    fault: Fault | None


def examine_masks(
    splits: Mapping[str, tuple[Sequence[MaskRecord], Sequence[Fault]]],
    reader: MaskReader,
    workers: int = 4,
) -> MaskReport:
    """Read everything: split name -> (records, faults) as ``read_mask_split`` gives them.

    Finds pictures and masks that cannot be read, sizes that differ, indices or colours that no
    class has (with their pixels), classes that a split lacks, identical pictures within a split
    and between them.
    """
    names = reader.dataset.names
    report = MaskReport(names, {})
    first = FirstSeen()
    for split, (records, given) in splits.items():
        counts = np.zeros((2, len(names) + 1), np.int64)
        part = MaskSplitReport(len(records), pixels=counts[0], images_with=counts[1])
        part.faults = list(given)
        with ThreadPoolExecutor(workers) as pool:
            for record, seen in zip(records, pool.map(lambda r: _see(r, reader), records)):
                if seen.fault is not None:
                    part.faults.append(seen.fault)
                if seen.size is None or seen.pixels is None or seen.digest is None:
                    continue
                part.pixels += seen.pixels
                part.images_with += seen.pixels > 0
                part.sizes[seen.size] = part.sizes.get(seen.size, 0) + 1
                again = first.fault(seen.digest, split, record.image)
                part.faults += [again] if again else []
        absent = [name for name, pixels in zip(names, part.pixels) if not pixels]
        part.faults += [
            Fault("class without pixels", None, f"'{name}' in {split}", "warning")
            for name in absent
        ]
        if not records:
            part.faults.append(Fault("empty", None, f"the {split} data have no pair to be used"))
        report.splits[split] = part
    return report


def _see(record: MaskRecord, reader: MaskReader) -> _Seen:
    classes = len(reader.dataset.names)
    try:
        size, digest = see_image(record.image, reader.dataset.CHANNELS)
    except UserError as error:
        return _Seen(None, None, None, Fault("unreadable image", record.image, str(error)))
    try:
        mask = reader.of(record, size)
    except UserError as error:
        return _Seen(None, None, None, Fault("bad mask", record.mask, str(error)))
    counts = np.bincount(mask.reshape(-1), minlength=256)
    fault = None
    if counts[IGNORE] == mask.size:
        detail = "not one pixel has a class"
        fault = Fault("mask without classes", record.mask, detail, "warning")
    return _Seen(size, np.append(counts[:classes], counts[IGNORE]), digest, fault)
