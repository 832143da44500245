"""YOLO text files: one line an object, ``class cx cy w h`` as fractions of the image.

The class is an index from 0 into CLASSES without ``__background__``. Lines of polygons
(``class x1 y1 x2 y2 x3 y3 ...``) are read as their bounding boxes.
"""

from __future__ import annotations

from pathlib import Path

from ...core.errors import UserError
from ..common.faults import Fault
from ..common.images import image_size_of
from ..common.listing import annotations_by_stem, images_by_stem, read_ids
from .records import BoxRecord, make_record

_FAR = 2.0  # fractions beyond this are pixels by mistake


def read(
    images: Path, annotations: Path, listed: Path | None, names: list[str]
) -> tuple[list[BoxRecord], list[Fault]]:
    """Read a split: pairs by stem, or those of a list file. See reader.read_split.

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
    records = []
    for name in ids:
        image, text = found.get(name), texts.get(name)
        if image is None:
            detail = f"no image named {name}.* in {images}"
            faults.append(Fault("missing image", text or listed, detail))
            continue
        if text is None:
            detail = f"no {name}.txt in {annotations}: taken as an image without objects"
            faults.append(Fault("missing annotation", image, detail, "warning"))
        record, found_wrong = _read_text(image, text, names)
        faults += found_wrong
        if record is not None:
            records.append(record)
    if records and not any(record.annotation for record in records):
        faults.append(Fault("missing annotation", annotations, "no TXT file belongs to any image"))
    return records, faults


def _read_text(
    image: Path, text: Path | None, names: list[str]
) -> tuple[BoxRecord | None, list[Fault]]:
    try:
        size = image_size_of(image)
    except UserError as error:
        return None, [Fault("unreadable image", image, str(error))]
    faults: list[Fault] = []
    objects = []
    lines: list[str] = []
    if text is not None:
        try:
            lines = text.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            return None, [Fault("unreadable annotation", text, f"not a text file: {error}")]
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        assert text is not None
        parsed = _read_line(words, names)
        if isinstance(parsed, tuple):
            left, top, right, bottom, label = parsed
            x, y = size
            objects.append((left * x, top * y, right * x, bottom * y, label, False, False))
        else:
            kind, detail = parsed
            faults.append(Fault(kind, text, f"line {number}: {detail}"))
    record, repaired = make_record(image, text, image.stem, objects, size)
    return record, faults + repaired


def _read_line(
    words: list[str], names: list[str]
) -> tuple[float, float, float, float, int] | list[str]:
    """Fractions (x1, y1, x2, y2) and the label, or [kind, detail] of what is wrong."""
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
    label = int(index) + 1
    if len(values) == 4:
        x, y, w, h = values
        return x - w / 2, y - h / 2, x + w / 2, y + h / 2, label
    xs, ys = values[0::2], values[1::2]
    return min(xs), min(ys), max(xs), max(ys), label
