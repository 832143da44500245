"""The full examination of a data set of depths: every file read, metres counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ...core.errors import UserError
from ...core.structures import Size
from ..common.duplicates import FirstSeen, digest_of, see_image
from ..common.faults import Fault
from ..common.report import FullReport, fault_values, size_table, text_table
from .reader import DepthRecord, measured, read_metres
from .settings import DepthDataset

_BINS = 10_000  # of the histogram that the percentiles come from
_FEW = 0.01  # share of measured pixels under which a depth is worth a word
_BEYOND = 0.5  # share of stored values beyond the range from which the scale is doubtful


@dataclass
class DepthSplitReport:
    """One split. pixels, known: all pixels, and those measured; least: the smallest share of them
    in a pair; histogram: int64 [_BINS] of metres from 0 to MAX_DEPTH; near, far: the extremes."""

    images: int
    pixels: int = 0
    known: int = 0
    least: float = 1.0
    near: float = float("inf")
    far: float = 0.0
    total: float = 0.0
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    sizes: dict[Size, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def figures(self, most: float) -> dict[str, float]:
        """Metres and shares by name, for the table; most: MAX_DEPTH."""
        shares = {
            "measured, % of pixels": 100 * self.known / max(1, self.pixels),
            "measured, % in the least pair": 100 * self.least if self.sizes else 0.0,
        }
        if not self.known:
            return shares
        summed = np.cumsum(self.histogram)
        metres: dict[str, float] = {"nearest (m)": self.near}
        for percent in (1, 50, 99):
            place = int(np.searchsorted(summed, percent / 100 * self.known))
            metres[f"{percent} % below (m)"] = (place + 0.5) * most / _BINS
        return {**shares, **metres, "farthest (m)": self.far, "mean (m)": self.total / self.known}


@dataclass
class DepthDataReport(FullReport[DepthSplitReport]):
    """Of a data set of depths. most: MAX_DEPTH."""

    most: float = 10.0

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, each fault included."""
        return {
            split: {
                "images": part.images,
                "depth": {k: round(v, 4) for k, v in part.figures(self.most).items()},
                "sizes": {f"{size.width}x{size.height}": n for size, n in part.sizes.items()},
                "faults": fault_values(part.faults),
            }
            for split, part in self.splits.items()
        }

    def _classes(self) -> str:
        parts = list(self.splits.values())
        figures = [part.figures(self.most) for part in parts]
        names = list(dict.fromkeys(name for one in figures for name in one))
        rows = [["depth", *self.splits], ["pairs", *(str(part.images) for part in parts)]]
        rows += [
            [name, *(f"{one[name]:.2f}" if name in one else "-" for one in figures)]
            for name in names
        ]
        return text_table(rows)

    def _sizes(self) -> str:
        return size_table({split: part.sizes for split, part in self.splits.items()})


class _Seen(NamedTuple):
    """A pair: its size, digests of the picture and of the depth, the depth in metres (0 = not
    measured), and what is doubtful; the last alone when it could not be read."""

    size: Size | None
    digests: tuple[bytes, bytes]
    depth: np.ndarray | None
    faults: list[Fault]


def examine_depths(
    splits: Mapping[str, tuple[Sequence[DepthRecord], Sequence[Fault]]],
    dataset: DepthDataset,
    workers: int = 4,
) -> DepthDataReport:
    """Read everything: split name -> (records, faults) as ``read_depth_split`` gives them.

    Finds pictures and depths that cannot be read, sizes that differ, depths with nothing or
    little measured, with one value only, or mostly beyond the range (a wrong DEPTH_SCALE), the
    same depth for two pictures, and identical pictures within a split and between them.
    """
    report = DepthDataReport([], {}, dataset.MAX_DEPTH)
    seen, depths = FirstSeen(), FirstSeen()
    for split, (records, given) in splits.items():
        part = DepthSplitReport(len(records), faults=list(given))
        if not records:
            part.faults.append(Fault("empty", None, f"the {split} data have no pair to be used"))
        with ThreadPoolExecutor(workers) as pool:
            for record, pair in zip(records, pool.map(lambda r: _see(r, dataset), records)):
                part.faults += pair.faults
                if pair.size is None or pair.depth is None:
                    continue
                _count(part, pair.size, pair.depth, dataset.MAX_DEPTH)
                again = seen.fault(pair.digests[0], split, record.image)
                same = depths.fault(pair.digests[1], split, record.depth)
                if again is not None:
                    part.faults.append(again)
                elif same is not None and pair.depth.any():
                    detail = same.detail.replace("the same picture", "the same depth")
                    part.faults.append(Fault("repeated depth", record.depth, detail, "warning"))
        if part.sizes and not part.known:
            part.faults.append(Fault("empty", None, f"the {split} data have no measured pixel"))
        report.splits[split] = part
    return report


def _count(part: DepthSplitReport, size: Size, depth: np.ndarray, most: float) -> None:
    known = depth[depth > 0]
    part.pixels += depth.size
    part.known += known.size
    part.least = min(part.least, known.size / depth.size)
    part.sizes[size] = part.sizes.get(size, 0) + 1
    if known.size:
        part.near, part.far = min(part.near, float(known.min())), max(part.far, float(known.max()))
        part.total += float(known.sum(dtype=np.float64))
        part.histogram += np.histogram(known, _BINS, (0, most))[0]


def _see(record: DepthRecord, dataset: DepthDataset) -> _Seen:
    try:
        size, picture = see_image(record.image)
    except UserError as error:
        return _Seen(None, (b"", b""), None, [Fault("unreadable image", record.image, str(error))])
    try:
        metres = read_metres(record.depth, dataset, size)
    except UserError as error:
        return _Seen(size, (b"", b""), None, [Fault("bad depth", record.depth, str(error))])
    depth = measured(metres, dataset)
    return _Seen(size, (picture, digest_of(depth)), depth, _doubts(record, metres, depth, dataset))


def _doubts(
    record: DepthRecord, metres: np.ndarray, depth: np.ndarray, dataset: DepthDataset
) -> list[Fault]:
    """What is readable and yet hardly right; warnings."""
    stored = np.isfinite(metres) & (metres != 0)
    known = depth > 0
    found = []
    beyond = (stored & ~known).sum() / max(1, stored.sum())
    if stored.any() and beyond >= _BEYOND:
        middle = float(np.median(metres[stored]))
        detail = (
            f"{100 * beyond:.0f} % of its values are not between {dataset.MIN_DEPTH:g} and "
            f"{dataset.MAX_DEPTH:g} m (the middle one is {middle:.5g} m): see DEPTH_SCALE "
            f"({dataset.DEPTH_SCALE or 'not given'}), MAX_DEPTH"
        )
        found.append(("depth beyond the range", detail))
    if not known.any():
        found.append(("nothing measured", "not one pixel has a depth"))
    elif known.mean() < _FEW:
        found.append(("little measured", f"{100 * known.mean():.2g} % of the pixels have a depth"))
    elif depth[known].min() == depth[known].max():
        found.append(
            ("depth of one value", f"every measured pixel is {depth[known][0]:.3f} m away")
        )
    return [Fault(kind, record.depth, detail, "warning") for kind, detail in found]
