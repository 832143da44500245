"""Results in the pixels of the original images, and the files they are written to.

``detections.json`` is a COCO results list, one ``{image_id, category_id, bbox [x, y, width,
height], score}`` a detection, as ``COCO.loadRes`` takes it. ``images.json`` beside it is a COCO
data set without truth: ``images`` (id -> file_name, width, height, and for a video frame and
seconds), ``categories`` (id = label, from 1) and empty ``annotations``; so
``COCO("images.json").loadRes("detections.json")`` works as it is. ``detections.csv`` holds the
same with names and corners, for spreadsheets. Where objects are tracked, both say ``track_id``:
from 1, and 0 for what has none so far.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from ..core.files import atomic_path
from ..core.structures import Detections, Geometry, Size
from .tracking import BoxTracker

log = logging.getLogger(__name__)

# draw(image uint8 [H, W, 3], boxes [N, 4], labels [N], names, scores [N]) -> a new image; where
# they are tracked, ids [N] follow
DrawDetections = Callable[..., np.ndarray]

CSV_COLUMNS = (
    "image_id",
    "file_name",
    "category_id",
    "category",
    "score",
    "x1",
    "y1",
    "x2",
    "y2",
)


def rescale_detections(result: Detections, geometry: Geometry) -> Detections:
    """Boxes from the pixels of the model's input to those of the original, clipped to it."""
    x, y = geometry.scale
    width, height = geometry.original
    boxes = result["boxes"].float() / torch.tensor([x, y, x, y], device=result["boxes"].device)
    boxes[:, 0::2] = boxes[:, 0::2].clamp(0, width)
    boxes[:, 1::2] = boxes[:, 1::2].clamp(0, height)
    return {"boxes": boxes, "scores": result["scores"].float(), "labels": result["labels"]}


def keep_above(result: Detections, threshold: float) -> Detections:
    """The detections whose score is at least the threshold, or that have an id."""
    kept = result["scores"] >= threshold
    if "ids" in result:
        kept = kept | (result["ids"] > 0)
    return rows_of(result, kept)


def rows_of(result: Detections, rows: Tensor) -> Detections:
    """Some of the detections: rows are a mask bool [N], or indices int64."""
    found: Any = {name: value[rows] for name, value in cast(dict, result).items()}
    return found


@dataclass(frozen=True)
class _Entry:
    """One image: what images.json says of it, and its detections [N, 6] xyxy, score, label; where
    they are tracked [N, 7], with ids."""

    image: dict[str, Any]
    rows: np.ndarray


class Report:
    """Draws and gathers the results of a task while a run goes on."""

    files: tuple[str, ...] = ()  # names of the result files
    arrays: Path | None = None  # where ``save_array`` writes arrays/; None: nowhere
    stem = ""  # of a video's results

    def __init__(self) -> None:
        self._arrays_taken: set[str] = set()
        self._held: Any = None
        self.entries: list[Any] = []  # what ``make`` said of each image

    def __len__(self) -> int:
        """Images or frames that were kept."""
        return len(self.entries)

    def make(self, image: np.ndarray, result: Any, info: dict[str, Any]) -> Made:
        """What is to be said of an image (uint8 [H, W, 3]), and its annotated copy; nothing is
        kept. Frames of a video may be made by several threads at once.

        result: in the image's pixels, on the CPU; info: ``id``, ``file_name``, for pictures
        ``output`` (the name of the copy), for video ``frame`` and ``seconds``.
        """
        raise NotImplementedError

    def follow(self, result: Any, seconds: float, size: Size) -> Any:
        """What is to be said of a video's next frame (at its time, of this size); asked for in
        their order, in one thread. result: the model's, or None between key frames (--every):
        then the last one's holds."""
        self._held = self._held if result is None else result
        return self._held

    def save_array(self, info: dict[str, Any], array: np.ndarray, kind: str = "npy") -> str | None:
        """Write what was found in an image as it is (--save-arrays): arrays/<name>.npy, or of
        ``kind`` npz, compressed, under the name ``array``. The file's name; None: not asked for."""
        if self.arrays is None:
            return None
        output = str(info.get("output", f"{self.stem}_{info.get('frame', 0):06d}"))
        name = beside("arrays", output, self._arrays_taken, f".{kind}")
        with atomic_path(self.arrays / name) as temporary, open(temporary, "wb") as file:
            if kind == "npz":
                np.savez_compressed(file, array=array)
            else:
                np.save(file, array)
        return name

    def keep(self, made: Made) -> np.ndarray:
        """Keep what was said of the next image; returns the annotated copy."""
        self.entries.append(made.entry)
        return made.annotated

    def add(self, image: np.ndarray, result: Any, info: dict[str, Any]) -> np.ndarray:
        """``make`` and ``keep``."""
        return self.keep(self.make(image, result, info))

    def write(self, folder: str | Path, prefix: str = "") -> None:
        """Write the result files for what was kept so far (called at any time).

        prefix: what stands before their names, where a folder holds results of several sources.
        """
        raise NotImplementedError


class Made(NamedTuple):
    """What ``Report.make`` makes of an image: what is said of it, and its annotated copy."""

    entry: Any
    annotated: np.ndarray


class DetectionReport(Report):
    """Draws and gathers detections, and writes ``detections.json``, ``.csv``, ``images.json``.

    Rows are held as float32 arrays (24 bytes a detection) until ``write``, which may be called
    at any time: each file is whole, and right for what was added so far.
    """

    files: tuple[str, ...] = ("detections.json", "detections.csv", "images.json")

    def __init__(
        self,
        draw: DrawDetections,
        names: Sequence[str],
        threshold: float,
        select: Callable[[Detections, Size], Detections] = lambda found, _: found,
        tracker: BoxTracker | None = None,
    ) -> None:
        self.tracker = tracker
        self._draw, self._select = draw, select
        self.names = list(names)
        self._threshold = threshold
        super().__init__()

    def follow(self, result: Any, seconds: float, size: Size) -> Any:
        """See Report; with a tracker, detections get ids, and move on between key frames."""
        if self.tracker is None:
            return super().follow(result, seconds, size)
        return self.tracker.follow(result, seconds, size)

    def wanted(self, result: Detections, size: Size) -> Detections:
        """What reaches the threshold and is selected, of an image of this size."""
        return self._select(keep_above(result, self._threshold), size)

    def make(self, image: np.ndarray, result: Detections, info: dict[str, Any]) -> Made:
        """What reaches the threshold, and the picture with it."""
        size = Size(image.shape[1], image.shape[0])
        kept = self.wanted(result, size)
        boxes, scores = kept["boxes"].numpy(), kept["scores"].numpy()
        labels = kept["labels"].numpy()
        ids = [kept["ids"].numpy()] if "ids" in kept else []
        annotated = self._draw(image, boxes, labels, self.names, scores, *ids)
        columns = [boxes, *(column[:, None] for column in (scores, labels, *ids))]
        rows = np.concatenate(columns, axis=1, dtype=np.float64 if ids else np.float32)
        said = {**info, "width": size.width, "height": size.height, "detections": len(rows)}
        return Made(_Entry(said, rows), annotated)

    def _records(self) -> Iterator[tuple[dict[str, Any], int, float, list[float], list[int]]]:
        for entry in self.entries:
            for row in entry.rows.tolist():
                corners = [round(v, 2) for v in row[:4]]
                yield entry.image, int(row[5]), round(row[4], 5), corners, [int(v) for v in row[6:]]

    def _results(self) -> Iterator[dict[str, Any]]:
        for image, label, score, (x1, y1, x2, y2), ids in self._records():
            bbox = [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]
            found = {"image_id": image["id"], "category_id": label, "bbox": bbox, "score": score}
            yield {**found, **dict(zip(["track_id"], ids))}

    def write(self, folder: str | Path, prefix: str = "") -> None:
        """Write the three files atomically. Raises UserError when the folder cannot be written."""
        self.entries.sort(key=lambda entry: entry.image["id"])  # they come by their input's shape
        if self.entries and not any(len(entry.rows) for entry in self.entries):
            log.warning(
                "no detection in %d images or frames scores %g or more (--threshold)",
                len(self.entries),
                self._threshold,
            )
        results, table, about = (Path(folder) / f"{prefix}{name}" for name in self.files)
        with atomic_path(results) as temporary:
            temporary.write_text(json_list(self._results()) + "\n", encoding="utf-8")
        write_coco(about, (entry.image for entry in self.entries), self.names[1:])
        with (
            atomic_path(table) as temporary,
            open(temporary, "w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow([*CSV_COLUMNS, *(["track_id"] if self.tracker else [])])
            for image, label, score, corners, ids in self._records():
                name = self.names[label] if 0 <= label < len(self.names) else ""
                where = image["id"], image["file_name"]
                writer.writerow([*where, label, name, score, *corners, *ids])


def write_coco(
    path: Path,
    images: Iterable[dict[str, Any]],
    names: Sequence[str],
    annotations: Iterable[dict[str, Any]] = (),
    kinds: Sequence[dict[str, Any]] = (),
) -> None:
    """A COCO file: images, the categories ``names`` with ids from 1 (kinds: more of each), and
    annotations."""
    more = kinds or [{}] * len(names)
    categories = [{"id": i, "name": n, **m} for i, (n, m) in enumerate(zip(names, more), 1)]
    with atomic_path(path) as temporary:
        temporary.write_text(
            f'{{"images": {json_list(images)},\n"categories": {json_list(categories)},\n'
            f'"annotations": {json_list(annotations)}}}\n',
            encoding="utf-8",
        )


def json_list(items: Iterable[Any]) -> str:
    """A JSON list, one item a line: quick for a million of them, and readable."""
    lines = [json.dumps(item, ensure_ascii=False) for item in items]
    return "[\n" + ",\n".join(lines) + "\n]" if lines else "[]"


def beside(folder: str, output: str, taken: set[str], suffix: str = ".png") -> str:
    """``<folder>/<stem><suffix>`` for an output file; its whole name where the stem is taken.

    taken: what has been given so far (it grows), compared without regard to case.
    """
    name = f"{folder}/{Path(output).stem}{suffix}"
    if name.casefold() in taken:
        name = f"{folder}/{output}{suffix}"
    taken.add(name.casefold())
    return name
