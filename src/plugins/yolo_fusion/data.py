"""A dataset YAML of this project, or one of ultralytics, as the data.yaml that a run reads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ...core.config import load_yaml, validate
from ...core.errors import UserError
from ...core.files import write_text
from ...data.boxes.doctor import quick_check
from ...data.boxes.reader import read_split
from ...data.boxes.records import BoxRecord
from ...data.boxes.settings import BoxDataset
from ...data.common.images import image_size_of
from ...data.common.listing import Split

THEIRS: dict[Split, str] = {"train": "train", "valid": "val", "test": "test"}


def box_dataset(config: Path) -> BoxDataset:
    """The YAML as this project's commands have it. UserError for what they cannot read."""
    content = load_yaml(config)
    content.pop("TRAIN", None)  # options of other commands
    return validate(BoxDataset, BoxDataset.from_yaml(content, config), str(config))


def records_of(dataset: BoxDataset, split: Split, data_root: Path | None = None) -> list[BoxRecord]:
    """One split. UserError for what is not there, or mostly wrong."""
    records, faults = read_split(dataset, split, data_root)
    quick_check({split: records}, faults, dataset.names)
    return records


def data_yaml(config: Path, folder: Path, data_root: Path | None, splits: Sequence[Split]) -> Path:
    """``folder``/data.yaml for ultralytics; its path.

    Of this project's YAMLs (VOC, COCO, YOLO) links to the images and label files are made beside
    it. Of ultralytics' own the copy has absolute paths and nothing that would be fetched.
    """
    content = load_yaml(config)
    path = folder / "data.yaml"
    if {"names", "train"} <= set(content):
        write_text(path, yaml.safe_dump(_own(content, config, data_root, splits), sort_keys=False))
        return path
    dataset = box_dataset(config)
    shutil.rmtree(folder, ignore_errors=True)
    told: dict[str, Any] = {"path": str(folder.resolve())}
    for split in splits:
        _write_split(records_of(dataset, split, data_root), folder, THEIRS[split], split)
        told[THEIRS[split]] = f"images/{THEIRS[split]}"
    told.setdefault("train", told[THEIRS[splits[-1]]])  # ultralytics asks for both
    told.setdefault("val", told[THEIRS[splits[-1]]])
    told["names"] = dict(enumerate(dataset.names[1:]))
    write_text(path, yaml.safe_dump(told, sort_keys=False, allow_unicode=True))
    return path


def _write_split(records: list[BoxRecord], folder: Path, name: str, split: Split) -> None:
    """Crowds, and difficult objects that are not trained on, have no place in these labels: they
    are left out, as ultralytics' own converters do."""
    images, labels = folder / "images" / name, folder / "labels" / name
    for made in (images, labels):
        made.mkdir(parents=True)
    for record in records:
        stem = record.id.replace("/", "__").replace("\\", "__")
        _link(record.image.resolve(), images / f"{stem}{record.image.suffix}")
        keep = ~record.crowd if split == "train" else ~(record.crowd | record.difficult)
        width, height = image_size_of(record.image)
        lines = []
        for (x1, y1, x2, y2), label in zip(record.boxes[keep].tolist(), record.labels[keep]):
            cx, cy = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height
            sides = f"{(x2 - x1) / width:.6f} {(y2 - y1) / height:.6f}"
            lines.append(f"{label - 1} {cx:.6f} {cy:.6f} {sides}\n")
        (labels / f"{stem}.txt").write_text("".join(lines))


def _link(source: Path, target: Path) -> None:
    try:
        os.symlink(source, target)
    except OSError:  # a system, or a user, without links
        shutil.copyfile(source, target)


def _own(
    content: dict[str, Any], config: Path, data_root: Path | None, splits: Sequence[Split]
) -> dict[str, Any]:
    """An ultralytics data.yaml with absolute paths and without its ``download``."""
    content.pop("download", None)
    named = Path(content.get("path") or "").expanduser()
    beside = config.parent / named
    root = data_root or (beside if beside.is_dir() else named)
    content["path"] = str(root.resolve())
    for key in {"train", "val", *(THEIRS[split] for split in splits)}:
        given = content.get(key)
        if not given:
            raise UserError(f"{config} names no images as {key}")
        for one in given if isinstance(given, list) else [given]:
            if not any((root / word).exists() for word in (one, str(one).removeprefix("../"))):
                raise UserError(f"{config}: {key} is {one}, and there is no such thing in {root}")
    return content
