"""Pascal VOC's instances: SegmentationObject (PNGs whose bytes number the objects from 1, 255 on
their outlines), and beside it SegmentationClass (the classes, from 1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...core.errors import UserError
from ..common.faults import Fault
from ..common.listing import annotations_by_stem, images_by_stem, read_ids
from .records import InstanceRecord
from .settings import InstanceDataset

CLASSES = "SegmentationClass"


def read(
    images: Path, annotations: Path, listed: Path | None, dataset: InstanceDataset
) -> tuple[list[InstanceRecord], list[Fault]]:
    """Read a split: the images that have both PNGs, or those of an ImageSets file. See
    reader.read_instance_split."""
    found, faults = images_by_stem(images)
    objects = annotations_by_stem(annotations, ".png")
    beside = annotations.parent / CLASSES
    if not beside.is_dir():
        raise UserError(f"no such folder: {beside}; the classes of {annotations} lie beside it")
    classes = annotations_by_stem(beside, ".png")
    ids = list(objects)
    if listed is not None:
        ids, repeated = read_ids(listed)
        faults = [fault for fault in faults if fault.path and fault.path.stem in ids] + repeated
    records = []
    for name in sorted(ids):
        missing = [
            f"no {name}.* in {folder}"
            for files, folder in ((found, images), (objects, annotations), (classes, beside))
            if name not in files
        ]
        if missing:
            kind = "missing image" if name not in found else "missing annotation"
            faults.append(Fault(kind, objects.get(name, listed), "; ".join(missing)))
            continue
        records.append(
            InstanceRecord(
                image=found[name],
                annotation=objects[name],
                id=name,
                size=None,
                labels=np.zeros(0, np.int64),
                crowd=np.zeros(0, bool),
                coded="voc",
                classes=classes[name],
            )
        )
    unused = [name for name in found if name not in objects]
    if unused and listed is None:
        detail = (
            f"{len(unused)} images have no {annotations.name} and are not used: {unused[0]} ..."
        )
        faults.append(Fault("missing annotation", images, detail, "warning"))
    return records, faults
