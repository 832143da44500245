"""The full examination of a classification data set: every image read, classes counted."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ...core.errors import UserError
from ...core.structures import Size
from ..common.duplicates import FirstSeen, see_image
from ..common.faults import Fault
from ..common.report import FullReport, fault_values, side_table, text_table
from .reader import LabelData, LabelRecord


@dataclass
class LabelSplitReport:
    """One split. counts: images of each class; unlabelled: images without a class (multi-label);
    sizes: of each image that could be read."""

    images: int
    counts: list[int]
    unlabelled: int
    sizes: list[Size] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


class LabelReport(FullReport[LabelSplitReport]):
    """Of a classification data set."""

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, each fault included."""
        return {
            split: {
                "images": part.images,
                "images_of": dict(zip(self.names, part.counts)),
                "images_without_class": part.unlabelled,
                "sizes": {
                    f"{size.width}x{size.height}": n for size, n in Counter(part.sizes).items()
                },
                "faults": fault_values(part.faults),
            }
            for split, part in self.splits.items()
        }

    def _classes(self) -> str:
        parts = self.splits.values()
        rows = [["class", *(f"{s} {what}" for s in self.splits for what in ("images", "%"))]]
        lines = [(name, [part.counts[i] for part in parts]) for i, name in enumerate(self.names)]
        if any(part.unlabelled for part in parts):
            lines.append(("(without a class)", [part.unlabelled for part in parts]))
        lines.append(("all", [part.images for part in parts]))
        for name, counts in lines:
            shares = [f"{100 * n / max(1, part.images):.1f}" for n, part in zip(counts, parts)]
            rows.append([name, *(text for n, s in zip(counts, shares) for text in (str(n), s))])
        return text_table(rows)

    def _sizes(self) -> str:
        return side_table({split: part.sizes for split, part in self.splits.items()})


def examine_labels(data: LabelData, workers: int = 4) -> LabelReport:
    """Read everything; ``data`` as ``folders.read_labels`` gives it.

    Beside the faults found there: images that cannot be decoded, splits and classes without
    images, identical pictures within a split, between them, and under different classes.
    """
    report = LabelReport(list(data.names), {})
    seen = FirstSeen()
    labels: dict[bytes, LabelRecord] = {}
    for split, records in data.records.items():
        counts = Counter(label for record in records for label in record.labels)
        part = LabelSplitReport(
            len(records),
            [counts[i] for i in range(len(data.names))],
            sum(not record.labels for record in records),
        )
        part.faults = list(data.found[split])
        if not records:
            detail = f"the {split} data have no image that can be used"
            part.faults.append(Fault("empty", None, detail))
        part.faults += [
            Fault("class without images", None, f"'{name}' in {split}", "warning")
            for name, count in zip(data.names, part.counts)
            if not count
        ]
        see = partial(_see, channels=data.channels)
        with ThreadPoolExecutor(workers) as pool:
            for record, (found, fault) in zip(records, pool.map(see, records)):
                if found is None:
                    part.faults += [fault] if fault else []
                    continue
                size, digest = found
                part.sizes.append(size)
                again = seen.fault(digest, split, record.image)
                part.faults += [again] if again else []
                first = labels.setdefault(digest, record)
                if first.image != record.image and set(first.labels) != set(record.labels):
                    what = ", ".join(data.names[i] for i in first.labels) or "no class"
                    detail = f"the same picture as {first.image}, which is: {what}"
                    part.faults.append(
                        Fault("one picture, two classes", record.image, detail, "warning")
                    )
        report.splits[split] = part
    return report


def _see(record: LabelRecord, channels: int) -> tuple[tuple[Size, bytes] | None, Fault | None]:
    try:
        return see_image(record.image, channels), None
    except UserError as error:
        return None, Fault("unreadable image", record.image, str(error))
