"""``python -m src.data.check`` of a data set of segmentation."""

from __future__ import annotations

from functools import partial

from ..data.common.report import Examined
from ..data.masks.doctor import examine_masks
from ..data.masks.reader import MaskReader, read_mask_split, split_folders
from ..data.masks.settings import CheckMasks
from ..visualise.data_samples import mask_samples


def examine(settings: CheckMasks) -> Examined:
    """The report of both splits, and what draws a picture of each one's samples."""
    reader = MaskReader(settings.dataset)
    found = {}
    for split in ("train", "valid"):
        flags = settings.folders_of(split)
        folders = split_folders(settings.dataset, split, settings.data_root, *flags)
        found[split] = read_mask_split(settings.dataset, folders)
    report = examine_masks(found, reader, settings.workers)
    return report, {
        split: partial(mask_samples, records, reader, settings.samples)
        for split, (records, _) in found.items()
    }
