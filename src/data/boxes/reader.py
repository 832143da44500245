"""One split of a detection data set: the table of formats, and where their files are."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from ...core.errors import UserError
from ..common.faults import Fault
from ..common.listing import Split, resolve_root
from .records import BoxRecord, select
from .settings import BoxDataset

log = logging.getLogger(__name__)


def split_paths(
    dataset: BoxDataset,
    split: Split,
    data_root: Path | None = None,
    images: Path | None = None,
    annotations: Path | None = None,
) -> tuple[Path, Path, Path | None]:
    """Images folder, annotations (folder or file) and split file of a split; images, annotations:
    those given as flags, which go before the YAML's. UserError when one is named nowhere."""
    root = data_root if data_root is not None else dataset.DATA_ROOT
    found = []
    for flag, key in ((images, "img"), (annotations, "annot")):
        named = getattr(dataset, f"{split}_{key}".upper())
        if flag is None and named is None:
            raise UserError(
                f"no {split} data: give --{split}-{key}, or {split.upper()}_{key.upper()} in the "
                "YAML"
            )
        found.append(flag.expanduser() if flag else resolve_root(root / named.expanduser()))
    listed = None if images is not None else getattr(dataset, f"{split.upper()}_SPLIT")
    return found[0], found[1], resolve_root(root / listed.expanduser()) if listed else None


def read_split(
    dataset: BoxDataset,
    split: Split,
    data_root: Path | None = None,
    given: Sequence[Path | None] = (),
) -> tuple[list[BoxRecord], list[Fault]]:
    """Read one split of a data set: its records, and all that is wrong with it.

    given: images and annotations as flags, which go before the YAML's.

    Nothing is dropped in silence: what has no record has a Fault. Images without objects are
    kept. With ``DIFFICULT: skip`` the difficult objects of the *training* split are left out.

    Raises UserError when a folder, the JSON or the split file is not there at all.
    """
    images, annotations, listed = split_paths(dataset, split, data_root, *given)
    if not images.is_dir() and dataset.HOW_TO_GET:
        raise UserError(
            f"no such folder of images: {images}; {dataset.HOW_TO_GET} (is it elsewhere? "
            "--data-root)"
        )
    reader = import_module(f".{dataset.FORMAT}", __package__)
    records, faults = reader.read(images, annotations, listed, dataset.names)
    if split == "train" and dataset.DIFFICULT == "skip":
        left_out = sum(int(record.difficult.sum()) for record in records)
        records = [
            select(record, ~record.difficult) if record.difficult.any() else record
            for record in records
        ]
        if left_out:
            log.info("%d difficult objects left out of training (DIFFICULT: skip)", left_out)
    return records, faults
