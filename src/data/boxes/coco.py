"""COCO JSON: images, annotations with bbox (x, y, width, height) and iscrowd, categories.

Categories are matched to CLASSES by name, so COCO's gaps in the category ids do not matter.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ...core.errors import UserError
from ...core.structures import Size
from ..common.faults import Fault
from ..common.images import is_image
from ..common.listing import read_ids
from .records import BoxRecord, make_record, unknown_class

_Object = tuple[float, float, float, float, int, bool, bool]
O = TypeVar("O")  # noqa: E741 - what is taken of an annotation
R = TypeVar("R")


def read(
    images: Path, annotations: Path, listed: Path | None, names: list[str]
) -> tuple[list[BoxRecord], list[Fault]]:
    """Read a split from one JSON file. See reader.read_split."""
    content = load(annotations)
    objects, wrong = objects_by_image(content, annotations, names, _box)
    records, faults = coco_records(content, images, annotations, listed, objects, _record)
    return records, [*wrong, *faults]


def coco_records(
    content: dict[str, list[dict[str, Any]]],
    images: Path,
    annotations: Path,
    listed: Path | None,
    objects: dict[Any, list[O]],
    make: Callable[[dict[str, Any], Path, Path, str, list[O]], tuple[R | None, list[Fault]]],
) -> tuple[list[R], list[Fault]]:
    """``make``(entry, image, annotations, id, objects) of the images of a COCO file.

    Image paths are ``file_name`` below the folder ``images`` (without sub-folder too). A split
    file, when given, picks images by stem. Images of the folder that the JSON does not name are
    not used; their number is one warning.
    """
    if not images.is_dir():
        raise UserError(f"no such folder of images: {images}; see DATA_ROOT, or give --data-root")
    faults: list[Fault] = []
    chosen: set[str] | None = None
    if listed is not None:
        ids, faults = read_ids(listed)
        chosen = set(ids)
        stems = {Path(str(entry.get("file_name", ""))).stem for entry in content["images"]}
        for name in sorted(chosen - stems):
            faults.append(Fault("missing image", listed, f"{name} is not in {annotations.name}"))
    for number, count in Counter(_key(entry.get("id")) for entry in content["images"]).items():
        if count > 1:
            detail = f"{count} images have the id {number}: whose are its objects?"
            faults.append(Fault("ambiguous image", annotations, detail))
    files = {p.relative_to(images).as_posix() for p in images.rglob("*") if is_image(p)}
    stems_count = Counter(Path(str(e.get("file_name", ""))).stem for e in content["images"])
    records = []
    used: set[str] = set()
    seen: set[str] = set()
    for entry in content["images"]:
        relative = Path(str(entry.get("file_name", "")))
        used.update((relative.as_posix(), relative.name))
        if chosen is not None and relative.stem not in chosen:
            continue
        unique = relative.stem if stems_count[relative.stem] == 1 else str(relative.with_suffix(""))
        if unique in seen or not relative.name:
            faults.append(Fault("ambiguous image", annotations, f"'{relative}' is listed twice"))
            continue
        seen.add(unique)
        file = next((f for f in (relative.as_posix(), relative.name) if f in files), None)
        if file is None:
            faults.append(Fault("missing image", annotations, f"no {relative} in {images}"))
            continue
        record, wrong = make(
            entry, images / file, annotations, unique, objects.get(_key(entry.get("id")), [])
        )
        faults += wrong
        if record is not None:
            records.append(record)
    unused = sorted(files - used)
    if unused:
        detail = f"{len(unused)} images are not in {annotations.name} and not used: {unused[0]} ..."
        faults.append(Fault("missing annotation", images, detail, "warning"))
    return records, faults


def load(path: Path) -> dict[str, list[dict[str, Any]]]:
    if path.is_dir():
        raise UserError(f"FORMAT coco reads one JSON file, and {path} is a folder")
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror or error}; see DATA_ROOT, or give --data-root"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None
    for key in ("images", "annotations", "categories"):
        listed = content.get(key) if isinstance(content, dict) else None
        if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
            raise UserError(f"{path} is not a COCO detection file: it has no list '{key}'")
    return content


def labels_of(
    content: dict[str, list[dict[str, Any]]], names: list[str]
) -> Callable[[Any], tuple[str, int | None]]:
    """category id -> (name, label; None where ``names``, which begin with the background, lack
    it)."""
    label_of = {name: label for label, name in enumerate(names) if label}
    category = {_key(c.get("id")): str(c.get("name", "")) for c in content["categories"]}

    def label(number: Any) -> tuple[str, int | None]:
        name = category.get(_key(number), f"category id {number}")
        return name, label_of.get(name)

    return label


def objects_by_image(
    content: dict[str, list[dict[str, Any]]],
    path: Path,
    names: list[str],
    take: Callable[[dict[str, Any], int], O],
) -> tuple[dict[Any, list[O]], list[Fault]]:
    """image id -> ``take``(annotation, label) of its annotations, and faults; ``take`` raises
    ValueError with what is wrong."""
    label_of = labels_of(content, names)
    known = {_key(entry.get("id")) for entry in content["images"]}
    faults: list[Fault] = []
    strangers: Counter[str] = Counter()
    objects: dict[Any, list[O]] = {}
    for item in content["annotations"]:
        image = _key(item.get("image_id"))
        name, label = label_of(item.get("category_id"))
        if image not in known:
            detail = f"annotation {item.get('id')} is of image {image}, which is not listed"
            faults.append(Fault("missing image", path, detail))
        elif label is None:
            strangers[name] += 1
        else:
            try:
                objects.setdefault(image, []).append(take(item, label))
            except ValueError as error:
                faults.append(Fault("bad number", path, f"annotation {item.get('id')} {error}"))
    for name, count in strangers.items():
        fault = unknown_class(name, names, path)
        faults.append(Fault(fault.kind, path, f"{fault.detail} ({count} objects)"))
    return objects, faults


def _box(item: dict[str, Any], label: int) -> _Object:
    try:
        x, y, w, h = (float(value) for value in item["bbox"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"has bbox {item.get('bbox')}") from None
    return x, y, x + w, y + h, label, False, bool(item.get("iscrowd", 0))


def _key(value: Any) -> Any:
    """An id as something to look up by, whatever the JSON has there."""
    return value if isinstance(value, (int, str)) else repr(value)


def _record(
    entry: dict[str, Any], image: Path, path: Path, unique: str, objects: list[_Object]
) -> tuple[BoxRecord | None, list[Fault]]:
    size, wrong = size_of(entry, path)
    record, faults = make_record(image, path, unique, objects, size)
    faults = [*wrong, *faults]
    # One JSON for all: name the image, not the file.
    return record, [Fault(f.kind, image, f.detail, f.severity) for f in faults]


def size_of(entry: dict[str, Any], path: Path) -> tuple[Size | None, list[Fault]]:
    """The size that an entry of ``images`` says, or None."""
    if not (entry.get("width") and entry.get("height")):
        return None, []
    try:
        return Size(int(entry["width"]), int(entry["height"])), []
    except (TypeError, ValueError, OverflowError):
        detail = f"the size is {entry['width']!r} x {entry['height']!r}: taken from the image"
        return None, [Fault("no size", path, detail, "repaired")]
