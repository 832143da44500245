"""One annotated image, whatever format it came from, and what was found wrong on the way."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from src.core.errors import UserError
from src.core.paths import PROJECT_ROOT
from src.core.registry import did_you_mean
from src.core.structures import Size
from src.data.images import image_size_of, is_image, natural_key
from src.data.settings import BoxDataset

log = logging.getLogger(__name__)

Split = Literal["train", "valid"]
Severity = Literal["error", "repaired", "warning"]


@dataclass(frozen=True)
class Fault:
    """Something wrong with a data set.

    ``error`` stops a training run; ``repaired`` has been put right in the record (a box clipped
    or dropped); ``warning`` is worth a look and changes nothing.
    """

    kind: str
    path: Path | None
    detail: str
    severity: Severity = "error"


@dataclass(frozen=True)
class BoxRecord:
    """One image and its boxes. Images without objects have N = 0.

    boxes: float32 [N, 4] xyxy, x2 and y2 exclusive, in pixels of the upright (EXIF applied)
    image; labels: int64 [N] from 1; difficult, crowd: bool [N] (VOC, COCO iscrowd); size: as
    the annotation says, or None; id: the stem of the image, unique in a split.
    """

    image: Path
    annotation: Path | None
    id: str
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray
    size: Size | None


def make_record(
    image: Path,
    annotation: Path | None,
    id: str,  # noqa: A002 - the field's name
    objects: Sequence[tuple[float, float, float, float, int, bool, bool]],
    size: Size | None,
) -> tuple[BoxRecord | None, list[Fault]]:
    """A record of objects (x1, y1, x2, y2, label, difficult, crowd), boxes made valid.

    A box over the edge of the image is clipped; one of no area, or not in the image at all, is
    dropped; each is a Fault of severity "repaired". A coordinate that is not a finite number is
    an "error". The image's header is read only when there is no ``size``, or a box beyond it.
    """
    where = annotation or image
    table = np.array([o[:4] for o in objects], np.float64).reshape(-1, 4)
    bounds = size
    if bounds is None or (table[:, 2:] > bounds).any():
        try:
            bounds = image_size_of(image)
        except UserError as error:
            return None, [Fault("unreadable image", image, str(error))]
    finite = np.asarray(np.isfinite(table).all(axis=1))
    area = np.asarray((table[:, 2:] > table[:, :2]).all(axis=1))
    clipped = table.clip(0, [*bounds, *bounds])
    inside = np.asarray((clipped[:, 2:] > clipped[:, :2]).all(axis=1))
    keep = finite & area & inside
    over = np.asarray((np.abs(clipped - table) > 0.01).any(axis=1))  # less is rounding
    faults: list[Fault] = []
    for row in np.flatnonzero(~keep | over):
        shown = "box " + " ".join(f"{value:g}" for value in table[row])
        within = f"{shown} in {bounds.width}x{bounds.height}"
        if not finite[row]:
            faults.append(Fault("bad number", where, shown))
        elif not area[row]:
            faults.append(Fault("box without area", where, f"{shown}: dropped", "repaired"))
        elif not inside[row]:
            faults.append(Fault("box outside", where, f"{within}: dropped", "repaired"))
        else:
            faults.append(Fault("box over the edge", where, f"{within}: clipped", "repaired"))
    flags = np.array([o[4:] for o in objects], np.int64).reshape(-1, 3)[keep]
    record = BoxRecord(
        image=image,
        annotation=annotation,
        id=id,
        boxes=clipped[keep].astype(np.float32),
        labels=flags[:, 0],
        difficult=flags[:, 1].astype(bool),
        crowd=flags[:, 2].astype(bool),
        size=size,
    )
    return record, faults


def select(record: BoxRecord, keep: np.ndarray) -> BoxRecord:
    """The record with the boxes of the mask ``keep`` (bool [N]) only."""
    return replace(
        record,
        boxes=record.boxes[keep],
        labels=record.labels[keep],
        difficult=record.difficult[keep],
        crowd=record.crowd[keep],
    )


def unknown_class(name: str, names: Sequence[str], where: Path) -> Fault:
    """The Fault of a class that CLASSES lacks."""
    hint = did_you_mean(name, names[1:])
    return Fault("unknown class", where, f"'{name}' is not among the YAML's CLASSES{hint}")


def images_by_stem(folder: Path) -> tuple[dict[str, Path], list[Fault]]:
    """stem -> image of a folder, in natural order; two images of one stem are an error."""
    if not folder.is_dir():
        raise UserError(f"no such folder of images: {folder}; see DATA_ROOT, or give --data-root")
    with os.scandir(folder) as entries:
        paths = [folder / e.name for e in entries if is_image(Path(e.name))]
    found: dict[str, Path] = {}
    faults = []
    for path in sorted(paths, key=natural_key):
        if path.stem in found:
            detail = f"{found[path.stem].name} and {path.name} have the same stem"
            faults.append(Fault("ambiguous image", path, detail))
        else:
            found[path.stem] = path
    return found, faults


def annotations_by_stem(folder: Path, suffix: str) -> dict[str, Path]:
    """stem -> annotation file of a folder (suffix in any case, hidden files left out)."""
    if not folder.is_dir():
        raise UserError(
            f"no such folder of annotations: {folder}; see DATA_ROOT, or give --data-root"
        )
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.name.lower().endswith(suffix)]
    return {Path(name).stem: folder / name for name in names if not name.startswith(".")}


def read_ids(split_file: Path) -> tuple[list[str], list[Fault]]:
    """The image ids (stems) that a split file names: the first word of each line.

    Lines may hold a path (YOLO's lists) and, as in VOC's class files, a flag after the id.
    """
    try:
        lines = split_file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the split file {split_file}: {error}") from None
    ids: list[str] = []
    for line in lines:
        words = line.split()
        if not words:
            continue
        whole = line.strip() if is_image(Path(line.strip())) else words[0]
        name = Path(whole.replace("\\", "/")).name
        ids.append(Path(name).stem if is_image(Path(name)) else name)
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    faults = [
        Fault("repeated id", split_file, f"{name} is named more than once: used once", "repaired")
        for name in repeated
    ]
    return list(dict.fromkeys(ids)), faults


def resolve_root(root: Path) -> Path:
    """A DATA_ROOT as it is, or below the project's root when the working folder has none."""
    root = root.expanduser()
    if not root.is_absolute() and not root.exists() and (PROJECT_ROOT / root).exists():
        return PROJECT_ROOT / root
    return root


def split_paths(
    dataset: BoxDataset, split: Split, data_root: Path | None = None
) -> tuple[Path, Path, Path | None]:
    """Images folder, annotations (folder or file) and split file of a split."""
    root = data_root if data_root is not None else dataset.DATA_ROOT
    if split == "train":
        parts = (dataset.TRAIN_IMG, dataset.TRAIN_ANNOT, dataset.TRAIN_SPLIT)
    else:
        parts = (dataset.VALID_IMG, dataset.VALID_ANNOT, dataset.VALID_SPLIT)
    images, annotations, listed = (
        None if part is None else resolve_root(root / part.expanduser()) for part in parts
    )
    assert images is not None and annotations is not None
    return images, annotations, listed


def read_split(
    dataset: BoxDataset, split: Split, data_root: Path | None = None
) -> tuple[list[BoxRecord], list[Fault]]:
    """Read one split of a data set: its records, and all that is wrong with it.

    Nothing is dropped in silence: what has no record has a Fault. Images without objects are
    kept. With ``DIFFICULT: skip`` the difficult objects of the *training* split are left out.

    Raises UserError when a folder, the JSON or the split file is not there at all.
    """
    from src.data import coco, voc, yolo  # they build on this module

    images, annotations, listed = split_paths(dataset, split, data_root)
    if not images.is_dir() and dataset.HOW_TO_GET:
        raise UserError(
            f"no such folder of images: {images}; {dataset.HOW_TO_GET} (is it elsewhere? "
            "--data-root)"
        )
    reader = {"voc": voc.read, "coco": coco.read, "yolo": yolo.read}[dataset.FORMAT]
    records, faults = reader(images, annotations, listed, dataset.names)
    if split == "train" and dataset.DIFFICULT == "skip":
        left_out = sum(int(record.difficult.sum()) for record in records)
        records = [
            select(record, ~record.difficult) if record.difficult.any() else record
            for record in records
        ]
        if left_out:
            log.info("%d difficult objects left out of training (DIFFICULT: skip)", left_out)
    return records, faults


def describe(faults: Iterable[Fault], limit: int = 20) -> str:
    """Faults as lines of text, at most ``limit`` of them and the number of the rest."""
    faults = list(faults)
    lines = [f"  {f.kind}: {f.path or '-'}: {f.detail}" for f in faults[:limit]]
    if len(faults) > limit:
        lines.append(f"  ... and {len(faults) - limit} more")
    return "\n".join(lines)
