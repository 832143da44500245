"""One split of a detection data set: the table of formats, and where their files are."""

from __future__ import annotations

import logging
from pathlib import Path

from ...core.errors import UserError
from ..common.faults import Fault
from ..common.listing import Split, resolve_root
from .records import BoxRecord, select
from .settings import BoxDataset

log = logging.getLogger(__name__)


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
    from . import coco, voc, yolo  # they build on this module

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
