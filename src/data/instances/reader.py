"""One split of a data set of instances, and the masks of a record."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image

from ...core.errors import UserError
from ...core.structures import IGNORE, Size
from ..boxes.reader import split_paths
from ..common.faults import Fault
from ..common.images import image_size_of
from ..common.listing import Split
from . import outlines
from .records import InstanceRecord, Objects
from .settings import InstanceDataset


def read_instance_split(
    dataset: InstanceDataset,
    split: Split,
    data_root: Path | None = None,
    given: Sequence[Path | None] = (),
) -> tuple[list[InstanceRecord], list[Fault]]:
    """The records of a split, and what is wrong with it; given: images and annotations as flags.

    Nothing is dropped in silence. Raises UserError when a folder or file is not there at all.
    """
    images, annotations, listed = split_paths(dataset, split, data_root, *given)
    if not images.is_dir():
        hint = f"{dataset.HOW_TO_GET} (is it elsewhere? --data-root)" if dataset.HOW_TO_GET else ""
        hint = hint or "see DATA_ROOT, or give --data-root"
        raise UserError(f"no such folder of images: {images}; {hint}")
    reader = import_module(f".{dataset.FORMAT}", __package__)
    return reader.read(images, annotations, listed, dataset)


class InstanceReader:
    """The masks of records."""

    def __init__(self, dataset: InstanceDataset) -> None:
        self.dataset = dataset

    def of(self, record: InstanceRecord, size: Size | None = None) -> Objects:
        """The objects of a record; size: its image's, where that is known.

        Those whose outlines hold no pixel (thin ones) are left out. Raises UserError for masks
        that cannot be read, are of another size, or are not in their PNG.
        """
        size = size or image_size_of(record.image)
        if record.coded == "outlines":
            objects = self._outlined(record, size)
        elif record.coded == "panoptic":
            objects = self._numbered(record, size)
        else:
            objects = self._voc(record, size)
        there = outlines.mask_areas(objects.rles) > 0
        if not there.all() and record.coded == "panoptic":
            raise UserError(
                f"{record.annotation}: object {there.argmin() + 1} of {len(there)} of "
                f"{record.image.name} has no pixel"
            )
        return objects.some(there)

    def _outlined(self, record: InstanceRecord, size: Size) -> Objects:
        try:
            rles = [outlines.to_rle(outline, size) for outline in record.outlines]
            outlines.mask_areas(rles)
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"{record.annotation}: an object of {record.image.name} "
                f"({size.width}x{size.height}): {error}"
            ) from None
        return Objects(rles, record.labels, record.crowd, size)

    def _numbered(self, record: InstanceRecord, size: Size) -> Objects:
        pixels = read_png(record.annotation, size, colour=True).astype(np.int64)
        ids = pixels[..., 0] + 256 * pixels[..., 1] + 256**2 * pixels[..., 2]
        masks = np.stack([ids == number for number in record.numbers] or [np.zeros(ids.shape)])
        rles = outlines.to_rles(masks[: len(record.numbers)])
        return Objects(rles, record.labels, record.crowd, size)

    def _voc(self, record: InstanceRecord, size: Size) -> Objects:
        """Object numbers from 1, 255 on outlines; the class of an object is that of most of its
        pixels, 0 the background."""
        assert record.classes is not None
        ids, classes = read_png(record.annotation, size), read_png(record.classes, size)
        numbers = [int(n) for n in np.unique(ids) if n not in (0, IGNORE)]
        masks, labels = [], []
        for number in numbers:
            mask = ids == number
            found = np.bincount(classes[mask], minlength=256)
            found[[0, IGNORE]] = 0
            label = int(found.argmax()) - 1
            if not 0 <= label < len(self.dataset.names):
                raise UserError(
                    f"{record.classes}: object {number} has the class {label + 1 or 'background'}"
                    f", and CLASSES name {len(self.dataset.names)}"
                )
            masks.append(mask)
            labels.append(label)
        rles = outlines.to_rles(np.stack(masks)) if masks else []
        return Objects(rles, np.array(labels, np.int64), np.zeros(len(labels), bool), size)


def read_png(path: Path, size: Size, colour: bool = False) -> np.ndarray:
    """The bytes of a PNG of this size: [H, W] as they are stored, or [H, W, 3]. UserError."""
    try:
        with Image.open(path) as file:
            pixels = np.asarray(file.convert("RGB") if colour else file)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if pixels.shape[:2] != (size.height, size.width):
        raise UserError(
            f"{path} is {pixels.shape[1]}x{pixels.shape[0]}, its image {size.width}x{size.height}"
        )
    if not colour and (pixels.ndim != 2 or pixels.dtype != np.uint8):
        raise UserError(f"{path} is no palette or grey PNG of bytes")
    return pixels


def without_pixel(record: InstanceRecord, objects: Objects) -> Fault | None:
    """What ``InstanceReader.of`` left out."""
    count = len(record.labels) - len(objects.labels)
    if count <= 0:  # VOC's objects are known when they are read
        return None
    detail = f"{count} of {record.image.name}: dropped"
    return Fault("object without a pixel", record.annotation, detail, "repaired")


def check_instances(
    records: Sequence[InstanceRecord],
    split: str,
    reader: InstanceReader,
    read: int = 500,
    workers: int = 4,
) -> list[Fault]:
    """What is wrong with the masks of at most ``read`` records, spread over the split."""
    if not records:
        return [Fault("empty", None, f"the {split} data have no image to be used")]

    def see(record: InstanceRecord) -> Fault | None:
        try:
            return without_pixel(record, reader.of(record))
        except UserError as error:
            return Fault("bad mask", record.annotation, str(error))

    chosen = records[:: max(1, -(-len(records) // read))]
    with ThreadPoolExecutor(workers) as pool:
        return [fault for fault in pool.map(see, chosen) if fault]
