"""The report of a data set's examination: tables of faults, classes and box sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from ...core.structures import Size
from .faults import Fault, example, grouped

_SEVERITIES = ["error", "repaired", "warning"]


@dataclass
class SplitReport:
    """One split: images: number; objects, images_with: per label; sides: float [N, 2] (w, h)."""

    images: int
    objects: list[int]
    images_with: list[int]
    sides: np.ndarray
    faults: list[Fault] = field(default_factory=list)


class Faulty(Protocol):
    """The report of a split."""

    faults: list[Fault]


P = TypeVar("P", bound=Faulty)


@dataclass
class FullReport(Generic[P]):
    """The full examination of a data set: class names, and a report of each split."""

    names: list[str]
    splits: dict[str, P]

    @property
    def errors(self) -> int:
        """How many faults would stop a training run."""
        return sum(f.severity == "error" for s in self.splits.values() for f in s.faults)

    def text(self) -> str:
        """Tables of faults, classes and sizes."""
        faults = fault_table({split: part.faults for split, part in self.splits.items()})
        return "\n\n".join([faults, self._classes(), self._sizes()])

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, each fault included."""
        raise NotImplementedError

    def _classes(self) -> str:
        raise NotImplementedError

    def _sizes(self) -> str:
        raise NotImplementedError


class BoxReport(FullReport[SplitReport]):
    """Of a detection data set."""

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, each fault included."""
        return {
            split: {
                "images": part.images,
                "objects": dict(zip(self.names[1:], part.objects[1:])),
                "images_with": dict(zip(self.names[1:], part.images_with[1:])),
                "sizes": _size_counts(part.sides),
                "faults": fault_values(part.faults),
            }
            for split, part in self.splits.items()
        }

    def _classes(self) -> str:
        rows = [["class", *(f"{s} {what}" for s in self.splits for what in ("objects", "images"))]]
        for label, name in enumerate(self.names):
            if label:
                parts = self.splits.values()
                counts = [str(n) for p in parts for n in (p.objects[label], p.images_with[label])]
                rows.append([name, *counts])
        totals = [str(n) for p in self.splits.values() for n in (sum(p.objects), p.images)]
        return text_table([*rows, ["all", *totals]])

    def _sizes(self) -> str:
        rows = [["box sizes", *self.splits]]
        counts = [_size_counts(part.sides) for part in self.splits.values()]
        rows += [[key, *(str(c[key]) for c in counts)] for key in counts[0]]
        return text_table(rows)


def fault_table(splits: Mapping[str, Sequence[Fault]]) -> str:
    """The faults of each split, a line a kind: how many, and one of them."""
    rows = [["fault", "severity", *splits, "for example"]]
    everything = grouped([fault for faults in splits.values() for fault in faults])
    for kind, severity in sorted(everything, key=lambda k: (_SEVERITIES.index(k[1]), k[0])):
        counts = [
            str(sum((f.kind, f.severity) == (kind, severity) for f in faults))
            for faults in splits.values()
        ]
        rows.append([kind, severity, *counts, example(everything[kind, severity])])
    return text_table(rows) if len(rows) > 1 else "no faults"


def fault_values(faults: Iterable[Fault]) -> list[dict[str, str]]:
    """Faults as plain values."""
    return [
        {
            "kind": fault.kind,
            "severity": fault.severity,
            "path": str(fault.path or ""),
            "detail": fault.detail,
        }
        for fault in faults
    ]


def _size_counts(sides: np.ndarray) -> dict[str, float]:
    """COCO's area classes and quantiles of the side sqrt(area) and of the aspect w / h."""
    side = np.sqrt(sides.prod(axis=1))
    result: dict[str, float] = {
        "small (area < 32x32)": int((side < 32).sum()),
        "medium": int(((side >= 32) & (side < 96)).sum()),
        "large (area >= 96x96)": int((side >= 96).sum()),
    }
    for what, values in (("side", side), ("aspect", sides[:, 0] / np.maximum(sides[:, 1], 1e-6))):
        for percent in (1, 50, 99):
            value = float(np.percentile(values, percent)) if len(values) else 0.0
            result[f"{what}, {percent} % below"] = round(value, 2)
    return result


def size_table(splits: Mapping[str, Mapping[Size, int]]) -> str:
    """How many images have each size, the eight commonest sizes a line each."""
    every = {size for sizes in splits.values() for size in sizes}
    often = sorted(every, key=lambda size: -sum(s.get(size, 0) for s in splits.values()))
    rows = [["size", *splits]]
    for size in often[:8]:
        counts = [str(sizes.get(size, 0)) for sizes in splits.values()]
        rows.append([f"{size.width}x{size.height}", *counts])
    if len(often) > 8:
        rows.append([f"and {len(often) - 8} more", *("" for _ in splits)])
    return text_table(rows)


def side_table(splits: Mapping[str, Sequence[Size]]) -> str:
    """Quantiles of the shorter side and of the aspect w / h of images of many sizes."""
    rows = [["image sizes", *splits]]
    sides = {name: np.array(sizes, float).reshape(-1, 2) for name, sizes in splits.items()}
    for what in ("shorter side", "aspect w/h"):
        for percent, word in ((0, "least"), (50, "middle"), (100, "most")):
            cells = []
            for values in sides.values():
                side = what == "shorter side"
                found = values.min(axis=1) if side else values[:, 0] / values[:, 1]
                figure = np.percentile(found, percent) if len(found) else 0.0
                cells.append(f"{figure:.0f}" if side else f"{figure:.2f}")
            rows.append([f"{what}, {word}", *cells])
    return text_table(rows)


def text_table(rows: list[list[str]]) -> str:
    """Aligned columns; the first line is the heading; numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    numeric = [
        all(row[i].replace(".", "").isdigit() for row in rows[1:]) for i in range(len(widths))
    ]
    lines = [
        "  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric)).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * min(100, max(map(len, lines))), *lines[1:]])


# A report, and for each split what draws a picture of samples (None: there are none).
Examined = tuple[FullReport[Any], dict[str, Callable[[], "np.ndarray | None"]]]
