"""YOLO text files: one line an object, ``class cx cy w h`` as fractions of the image.

The class is an index from 0 into CLASSES without ``__background__``. Lines of polygons
(``class x1 y1 x2 y2 x3 y3 ...``) are read as their bounding boxes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ...core.errors import UserError
from ...core.structures import Size
from ..common.faults import Fault
from ..common.images import image_size_of
from ..common.listing import annotations_by_stem, images_by_stem, read_ids
from .records import BoxRecord, make_record

_FAR = 2.0  # fractions beyond this are pixels by mistake
R = TypeVar("R")
Line = tuple[int, list[float]]  # label from 1, the numbers after it


def read(
    images: Path, annotations: Path, listed: Path | None, names: list[str]
) -> tuple[list[BoxRecord], list[Fault]]:
    """Read a split: pairs by stem, or those of a list file. See reader.read_split."""
    return yolo_records(images, annotations, listed, names, _record)


def yolo_records(
    images: Path,
    annotations: Path,
    listed: Path | None,
    names: list[str],
    make: Callable[[Path, Path | None, Size, list[Line]], tuple[R | None, list[Fault]]],
) -> tuple[list[R], list[Fault]]:
    """``make``(image, text file, size, lines) of all images of a split.

    By YOLO's custom an image without a TXT file is one without objects: kept, with a warning.
    """
    found, faults = images_by_stem(images)
    texts = annotations_by_stem(annotations, ".txt")
    texts.pop("classes", None)  # labelImg writes it among the annotations
    if listed is not None:
        ids, repeated = read_ids(listed)
        faults = repeated + [fault for fault in faults if fault.path and fault.path.stem in ids]
    else:
        ids = list(found) + [stem for stem in sorted(texts) if stem not in found]
    records, named = [], False
    for name in ids:
        image, text = found.get(name), texts.get(name)
        if image is None:
            detail = f"no image named {name}.* in {images}"
            faults.append(Fault("missing image", text or listed, detail))
            continue
        if text is None:
            detail = f"no {name}.txt in {annotations}: taken as an image without objects"
            faults.append(Fault("missing annotation", image, detail, "warning"))
        try:
            size = image_size_of(image)
        except UserError as error:
            faults.append(Fault("unreadable image", image, str(error)))
            continue
        try:
            lines, wrong = _lines(text, names)
        except UserError as error:
            faults.append(Fault("unreadable annotation", text, str(error)))
            continue
        named |= text is not None
        record, more = make(image, text, size, lines)
        faults += [*wrong, *more]
        if record is not None:
            records.append(record)
    if records and not named:
        faults.append(Fault("missing annotation", annotations, "no TXT file belongs to any image"))
    return records, faults


def _lines(text: Path | None, names: list[str]) -> tuple[list[Line], list[Fault]]:
    """The lines of a file, and faults of those that are wrong."""
    found: list[Line] = []
    faults: list[Fault] = []
    if text is None:
        return found, faults
    try:
        lines = text.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"not a text file: {error}") from None
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        parsed = _read_line(words, names)
        if isinstance(parsed, tuple):
            found.append(parsed)
        else:
            kind, detail = parsed
            faults.append(Fault(kind, text, f"line {number}: {detail}"))
    return found, faults


def _record(
    image: Path, text: Path | None, size: Size, lines: list[Line]
) -> tuple[BoxRecord | None, list[Fault]]:
    objects = []
    for label, values in lines:
        if len(values) == 4:
            x, y, w, h = values
            left, top, right, bottom = x - w / 2, y - h / 2, x + w / 2, y + h / 2
        else:
            xs, ys = values[0::2], values[1::2]
            left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
        corners = left * size.width, top * size.height, right * size.width, bottom * size.height
        objects.append((*corners, label, False, False))
    return make_record(image, text, image.stem, objects, size)


def _read_line(words: list[str], names: list[str]) -> Line | list[str]:
    """The label and fractions, or [kind, detail] of what is wrong."""
    try:
        index, values = float(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        return ["bad number", f"'{' '.join(words)[:60]}' is not numbers"]
    if not 0 <= index < len(names) - 1 or index != int(index):
        return ["unknown class", f"class {words[0]}, but CLASSES allow 0 to {len(names) - 2}"]
    if len(values) < 4 or (len(values) > 4 and (len(values) < 6 or len(values) % 2)):
        return ["bad number", f"{len(words)} numbers; wanted: class cx cy w h"]
    if any(abs(value) > _FAR for value in values):
        return ["bad number", f"'{' '.join(words)[:60]}' is not fractions of the image (0 to 1)"]
    return int(index) + 1, values
