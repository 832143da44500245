"""COCO JSON: images, annotations with bbox (x, y, width, height) and iscrowd, categories.

Categories are matched to CLASSES by name, so COCO's gaps in the category ids do not matter.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ...core.structures import Size
from ..common.faults import Fault
from ..common.images import is_image
from ..common.listing import read_ids
from .records import BoxRecord, make_record, unknown_class

_Object = tuple[float, float, float, float, int, bool, bool]


def read(
    images: Path, annotations: Path, listed: Path | None, names: list[str]
) -> tuple[list[BoxRecord], list[Fault]]:
    """Read a split from one JSON file. See reader.read_split.

    Image paths are ``file_name`` below the folder ``images`` (without sub-folder too). A split
    file, when given, picks images by stem. Images of the folder that the JSON does not name are
    not used; their number is one warning.
    """
    content = _load(annotations)
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
    objects, wrong = _objects_by_image(content, annotations, names)
    faults += wrong
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
        record, wrong = _record(
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


def _load(path: Path) -> dict[str, list[dict[str, Any]]]:
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


def _objects_by_image(
    content: dict[str, list[dict[str, Any]]], path: Path, names: list[str]
) -> tuple[dict[Any, list[_Object]], list[Fault]]:
    label_of = {name: label for label, name in enumerate(names) if label}
    category = {_key(c.get("id")): str(c.get("name", "")) for c in content["categories"]}
    known = {_key(entry.get("id")) for entry in content["images"]}
    faults: list[Fault] = []
    strangers: Counter[str] = Counter()
    objects: dict[Any, list[_Object]] = {}
    for item in content["annotations"]:
        image, number = _key(item.get("image_id")), _key(item.get("category_id"))
        name = category.get(number, f"category id {number}")
        if image not in known:
            detail = f"annotation {item.get('id')} is of image {image}, which is not listed"
            faults.append(Fault("missing image", path, detail))
        elif name not in label_of:
            strangers[name] += 1
        else:
            try:
                x, y, w, h = (float(value) for value in item["bbox"])
            except (KeyError, TypeError, ValueError):
                detail = f"annotation {item.get('id')} has bbox {item.get('bbox')}"
                faults.append(Fault("bad number", path, detail))
                continue
            row = (x, y, x + w, y + h, label_of[name], False, bool(item.get("iscrowd", 0)))
            objects.setdefault(image, []).append(row)
    for name, count in strangers.items():
        fault = unknown_class(name, names, path)
        faults.append(Fault(fault.kind, path, f"{fault.detail} ({count} objects)"))
    return objects, faults


def _key(value: Any) -> Any:
    """An id as something to look up by, whatever the JSON has there."""
    return value if isinstance(value, (int, str)) else repr(value)


def _record(
    entry: dict[str, Any], image: Path, path: Path, unique: str, objects: list[_Object]
) -> tuple[BoxRecord | None, list[Fault]]:
    size, wrong = None, []
    if entry.get("width") and entry.get("height"):
        try:
            size = Size(int(entry["width"]), int(entry["height"]))
        except (TypeError, ValueError, OverflowError):
            detail = f"the size is {entry['width']!r} x {entry['height']!r}: taken from the image"
            wrong = [Fault("no size", path, detail, "repaired")]
    record, faults = make_record(image, path, unique, objects, size)
    faults = [*wrong, *faults]
    # One JSON for all: name the image, not the file.
    return record, [Fault(f.kind, image, f.detail, f.severity) for f in faults]
