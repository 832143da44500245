"""What inference says of objects.

Instances: ``instances.json``, a COCO results list: image_id, category_id (from 1), segmentation
(compressed run lengths), bbox [x, y, width, height], score; and ``images.json``, a COCO data set
without truth, so that ``COCO("images.json").loadRes("instances.json")`` works.
Panoptic: ``panoptic.json`` and ``panoptic/*.png`` in COCO's panoptic format (of a video's frames
the JSON alone), with a score for each segment.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from ..core.errors import UserError
from ..core.files import atomic_path
from ..core.structures import Size
from ..data.common.images import write_image
from ..data.instances import outlines
from ..predict.predictor import Predictor
from ..predict.restore import Trained, predictor_of
from ..predict.result import Result, require_supervision
from ..predict.results import Made, Report, beside, json_list, write_coco
from ..predict.tracking import BoxTracker, floor_of
from ..visualise.objects import draw_objects
from .objects import (
    CERTAIN,
    Instances,
    Panoptic,
    boxes_of,
    instances_from,
    instances_of,
    masks_of,
    panoptic_from,
    panoptic_of,
)
from .restore import task_of
from .settings import InferSegmentationImage, InferSegmentationVideo

SURE = 0.5  # least score of an instance


def object_predictor(
    trained: Trained, options: InferSegmentationImage | InferSegmentationVideo, folder: Path
) -> tuple[Predictor[Any], ObjectReport]:
    """The predictor of a model of objects, and the report; UserError for what does not fit."""
    task = task_of(trained.checkpoint)
    asked = options.looks() + (["--save-arrays"] if options.save_arrays != "none" else [])
    if asked:
        raise UserError(f"{', '.join(asked)}: not for a model of --task {task}")
    names = trained.checkpoint["config"]["dataset"].get("STUFF_CLASSES") or []
    stuff = [trained.names.index(name) for name in names]
    report: ObjectReport
    track = getattr(options, "track", False)  # of a video
    if task == "instance":
        threshold = SURE if options.threshold is None else options.threshold
        report = InstanceReport(folder, trained.names, [], options)
        if track:
            report.tracker, threshold = BoxTracker(threshold), floor_of(threshold)
        on_device = partial(instances_of, threshold=threshold)
        from_device: Any = partial(instances_from, threshold=threshold)
    elif track:
        raise UserError("--track follows instances, and this model is of --task panoptic")
    else:
        threshold = CERTAIN if options.threshold is None else options.threshold
        report = PanopticReport(folder, trained.names, stuff, options)
        on_device = partial(panoptic_of, threshold=threshold)
        from_device = partial(panoptic_from, stuff=stuff)
    return predictor_of(trained, options, on_device=on_device, postprocess=from_device), report


@dataclass
class ObjectResult(Result):
    """The base of both: objects of an image; stuff: classes (indices of names) of no things; look:
    opacity and legend of the picture."""

    stuff: list[int]
    look: dict[str, Any]

    layer: ClassVar[int] = 0

    @property
    @abstractmethod
    def found(self) -> Instances | Panoptic:
        """As the predictor says it."""

    def draw(self) -> np.ndarray:
        """The image under its objects, with a legend of their classes."""
        return draw_result(self.image, self.found, self.names, self.stuff, **self.look)

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields."""
        return {name: value for name, value in self.found._asdict().items() if value is not None}

    def to_supervision(self) -> Any:
        """As ``supervision.Detections`` with masks; class_id is the index of the name."""
        masks, found = masks_of(self.found), self.found
        return require_supervision().Detections(
            xyxy=boxes_of(masks),
            mask=masks,
            confidence=found.scores,
            class_id=found.labels,
            data={"class_name": np.array([self.names[n] for n in found.labels], dtype=str)},
        )


@dataclass
class InstanceResult(ObjectResult):
    """Objects of an image, best first: masks bool [N, H, W], scores float32 [N] in [0, 1], labels
    int64 [N], indices of names; tracks int64 [N] (see ``Instances``), or None."""

    masks: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    tracks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def found(self) -> Instances:
        """As the predictor says it."""
        return Instances(self.masks, self.scores, self.labels, self.tracks)

    @property
    def boxes(self) -> np.ndarray:
        """float32 [N, 4] xyxy around the masks."""
        return boxes_of(self.masks)

    def to_dict(self) -> dict[str, Any]:
        """instances: a list of {label, name, score, box [x1, y1, x2, y2], area, segmentation}, the
        last COCO's compressed run lengths."""
        rows = zip(self.labels.tolist(), self.scores.tolist(), self.boxes.tolist(), self.masks)
        return {
            "width": self.image.shape[1],
            "height": self.image.shape[0],
            "instances": [
                {
                    "label": label,
                    "name": self.names[label],
                    "score": round(score, 5),
                    "box": box,
                    "area": int(mask.sum()),
                    "segmentation": outlines.as_text(outlines.to_rles(mask[None])[0]),
                }
                for label, score, box, mask in rows
            ],
        }


@dataclass
class PanopticResult(ObjectResult):
    """Segments of an image: ids int32 [H, W], from 1, 0 where there is none; of segment n + 1
    labels int64 [N], indices of names, and scores float32 [N]."""

    ids: np.ndarray
    labels: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def found(self) -> Panoptic:
        """As the predictor says it."""
        return Panoptic(self.ids, self.labels, self.scores)

    def to_dict(self) -> dict[str, Any]:
        """segments: a list of {id, label, name, thing, score, area}."""
        segments = [
            {
                "id": one["id"],
                "label": one["category_id"] - 1,
                "name": self.names[one["category_id"] - 1],
                "thing": one["category_id"] - 1 not in self.stuff,
                "score": one["score"],
                "area": one["area"],
            }
            for one in segments_info(self.found)
        ]
        height, width = self.ids.shape
        return {"width": width, "height": height, "segments": segments}


def draw_result(
    image: np.ndarray, found: Instances | Panoptic, names: list[str], stuff: list[int], **how: Any
) -> np.ndarray:
    """The image under what was found in it."""
    masks = masks_of(found)
    tracks = found.tracks if isinstance(found, Instances) else None
    how = {"stuff": stuff, "tracks": tracks, **how}
    return draw_objects(image, masks, found.labels, names, found.scores, **how)


def segments_info(found: Panoptic) -> list[dict[str, Any]]:
    """COCO's words on the segments, and their scores."""
    areas = np.bincount(found.ids.reshape(-1), minlength=len(found.labels) + 1)[1:]
    boxes = boxes_of(masks_of(found)).astype(int)
    rows = zip(found.labels.tolist(), found.scores.tolist(), areas.tolist(), boxes.tolist())
    return [
        {
            "id": number,
            "category_id": label + 1,
            "area": area,
            "bbox": [left, top, right - left, bottom - top],
            "iscrowd": 0,
            "score": round(score, 5),
        }
        for number, (label, score, area, (left, top, right, bottom)) in enumerate(rows, start=1)
    ]


class _Entry(NamedTuple):
    image: dict[str, Any]
    rows: list[dict[str, Any]]


class ObjectReport(Report):
    """Draws and gathers objects; files go to ``folder``. options: of the look of pictures."""

    entries: list[_Entry]

    def __init__(self, folder: Path, names: list[str], stuff: list[int], options: Any) -> None:
        self.folder, self.names, self.stuff = folder, list(names), stuff
        self.look = {"opacity": options.opacity, "legend": options.legend}
        self._taken: set[str] = set()
        super().__init__()

    def make(self, image: np.ndarray, result: Any, info: dict[str, Any]) -> Made:
        """result: ``Instances`` or ``Panoptic``."""
        size = {"width": image.shape[1], "height": image.shape[0]}
        entry = self.entry({**info, **size}, result)
        return Made(entry, draw_result(image, result, self.names, self.stuff, **self.look))

    def sorted(self) -> list[_Entry]:
        """What was kept, by the images' numbers (they come by the shape of their input)."""
        return sorted(self.entries, key=lambda entry: entry.image["id"])

    @abstractmethod
    def entry(self, info: dict[str, Any], found: Any) -> _Entry:
        """What is to be said of an image."""

    @abstractmethod
    def result(self, image: np.ndarray, found: Any) -> ObjectResult:
        """As Python gets it."""


class InstanceReport(ObjectReport):
    """Instances; tracker: gives them ids (--track)."""

    tracker: BoxTracker | None = None
    files: tuple[str, ...] = ("instances.json", "images.json")

    def result(self, image: np.ndarray, found: Instances) -> InstanceResult:
        """As Python gets it."""
        return InstanceResult(image, self.names, self.stuff, self.look, *found)

    def follow(self, result: Any, seconds: float, size: Size) -> Any:
        """See Report; with a tracker, by the boxes of the masks. Between key frames masks hold."""
        if self.tracker is None or result is None:
            return super().follow(result, seconds, size)
        rows = torch.arange(len(result.labels))  # in place of the labels: which are reported
        boxes, scores = (torch.from_numpy(one) for one in (boxes_of(result.masks), result.scores))
        kept = self.tracker.update({"boxes": boxes, "scores": scores, "labels": rows}, seconds)
        found = result.some(kept["labels"].numpy())._replace(tracks=kept["ids"].numpy())
        return super().follow(found, seconds, size)

    def entry(self, info: dict[str, Any], found: Instances) -> _Entry:
        """COCO results, with ``track_id`` where objects are tracked."""
        rles, boxes = outlines.to_rles(found.masks), boxes_of(found.masks)
        rows = [
            {
                "image_id": info["id"],
                "category_id": label + 1,
                "segmentation": outlines.as_text(rle),
                "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
                "score": round(score, 5),
            }
            for label, score, rle, box in zip(
                found.labels.tolist(), found.scores.tolist(), rles, boxes
            )
        ]
        if found.tracks is not None:
            rows = [{**row, "track_id": int(n)} for row, n in zip(rows, found.tracks)]
        return _Entry({**info, "instances": len(rows)}, rows)

    def write(self, folder: str | Path, prefix: str = "") -> None:
        """Write ``instances.json`` and ``images.json``."""
        results, about = (Path(folder) / f"{prefix}{name}" for name in self.files)
        entries = self.sorted()
        with atomic_path(results) as temporary:
            rows = json_list(row for entry in entries for row in entry.rows)
            temporary.write_text(rows + "\n", encoding="utf-8")
        write_coco(about, (entry.image for entry in entries), self.names)


class PanopticReport(ObjectReport):
    """Segments of things and stuff."""

    files: tuple[str, ...] = ("panoptic.json",)

    def result(self, image: np.ndarray, found: Panoptic) -> PanopticResult:
        """As Python gets it."""
        return PanopticResult(image, self.names, self.stuff, self.look, *found)

    def entry(self, info: dict[str, Any], found: Panoptic) -> _Entry:
        """COCO's panoptic annotation of a picture, and its PNG."""
        said = {"image_id": info["id"], "segments_info": segments_info(found)}
        if "output" in info:
            info["mask"] = beside("panoptic", str(info["output"]), self._taken)
            said["file_name"] = Path(info["mask"]).name
            numbers = found.ids[..., None] >> np.array([0, 8, 16])
            write_image(self.folder / info["mask"], (numbers & 255).astype(np.uint8))
        return _Entry(info, [said])

    def write(self, folder: str | Path, prefix: str = "") -> None:
        """Write ``panoptic.json``."""
        entries = self.sorted()
        kinds = [{"isthing": int(i not in self.stuff)} for i in range(len(self.names))]
        write_coco(
            Path(folder) / f"{prefix}{self.files[0]}",
            (entry.image for entry in entries),
            self.names,
            (entry.rows[0] for entry in entries),
            kinds,
        )
