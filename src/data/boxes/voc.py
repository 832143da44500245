"""Pascal VOC XML: flat folders of images and XML files, or a VOCdevkit with ImageSets.

VOC counts pixels from 1 and includes the last one (Everingham et al., The PASCAL Visual Object
Classes Challenge, development kit). So a box here is (xmin - 1, ymin - 1, xmax, ymax): with x2
exclusive, its width is the number of pixels VOC means. Coordinates may be fractions. A box with
xmax <= xmin is one of no area, though to the letter xmax == xmin means one pixel: no annotator
draws that, and tools that count from 0 write it for a slip of the mouse. Those tools also write
xmin = 0; their boxes come out one pixel to the left and are clipped there without a word.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from ...core.structures import Size
from ..common.faults import Fault
from ..common.listing import annotations_by_stem, images_by_stem, read_ids
from .records import BoxRecord, make_record, unknown_class

_Object = tuple[float, float, float, float, int, bool, bool]


def read(
    images: Path, annotations: Path, listed: Path | None, names: list[str]
) -> tuple[list[BoxRecord], list[Fault]]:
    """Read a split: pairs by stem, or the ids of an ImageSets file. See reader.read_split.

    The image is looked up by stem with any suffix; the XML's <filename> is only compared.
    """
    found, faults = images_by_stem(images)
    xmls = annotations_by_stem(annotations, ".xml")
    if listed is not None:
        ids, repeated = read_ids(listed)
        faults = repeated + [fault for fault in faults if fault.path and fault.path.stem in ids]
    else:
        ids = list(found) + [stem for stem in sorted(xmls) if stem not in found]
    label_of = {name: label for label, name in enumerate(names) if label}
    records = []
    for name in ids:
        image, xml = found.get(name), xmls.get(name)
        if image is None:
            what = xml or listed
            detail = f"no image named {name}.* in {images}"
            faults.append(Fault("missing image", what, detail))
        elif xml is None:
            detail = f"no {name}.xml in {annotations}"
            faults.append(Fault("missing annotation", image, detail))
        else:
            record, found_wrong = read_xml(image, xml, label_of, names)
            faults += found_wrong
            if record is not None:
                records.append(record)
    return records, faults


def read_xml(
    image: Path, xml: Path, label_of: dict[str, int], names: list[str]
) -> tuple[BoxRecord | None, list[Fault]]:
    """One XML file as a record; None with an "error" when it cannot be used at all."""
    try:
        root = ElementTree.parse(xml).getroot()
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        return None, [Fault("unreadable annotation", xml, f"not valid XML: {error}")]
    faults: list[Fault] = []
    filename = (root.findtext("filename") or "").strip()
    if filename and filename not in (image.name, image.stem):
        detail = f"<filename> is {filename}, the image {image.name}"
        faults.append(Fault("file name disagrees", xml, detail, "warning"))
    size = _read_size(root)
    if size is None:
        faults.append(Fault("no size", xml, "no <size>: taken from the image", "repaired"))
    objects: list[_Object] = []
    for element in root.iter("object"):
        read_object = _read_object(element, label_of, names, xml)
        if isinstance(read_object, Fault):
            faults.append(read_object)
        else:
            objects.append(read_object)
    record, repaired = make_record(image, xml, image.stem, objects, size)
    return record, faults + repaired


def _read_size(root: ElementTree.Element) -> Size | None:
    try:
        width = int(float(root.findtext("size/width") or 0))
        height = int(float(root.findtext("size/height") or 0))
    except ValueError:
        return None
    return Size(width, height) if width > 0 and height > 0 else None


def _read_object(
    element: ElementTree.Element, label_of: dict[str, int], names: list[str], xml: Path
) -> _Object | Fault:
    name = (element.findtext("name") or "").strip()
    label = label_of.get(name)
    if label is None:
        return unknown_class(name, names, xml)
    box = element.find("bndbox")
    if box is None:
        return Fault("object without box", xml, f"an object '{name}' has no <bndbox>")
    texts = {child.tag: child.text or "" for child in box}
    try:
        left, top, right, bottom = (float(texts[k]) for k in ("xmin", "ymin", "xmax", "ymax"))
    except (KeyError, ValueError):
        given = " ".join(f"{key}={text.strip()}" for key, text in texts.items())
        return Fault("bad number", xml, f"the <bndbox> of '{name}' has {given or 'nothing'}")
    difficult = (element.findtext("difficult") or "0").strip() not in ("0", "")
    if right > left and bottom > top:
        # Counted from 0: still the first pixel.
        left, top = (v - 1 if v >= 1 or v < 0 else 0.0 for v in (left, top))
    return left, top, right, bottom, label, difficult, False
