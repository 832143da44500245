"""``python -m src.data.check`` of a data set of segmentation."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..data.common.listing import Split
from ..data.common.report import Examined
from ..data.instances.doctor import examine_instances
from ..data.instances.reader import InstanceReader, read_instance_split
from ..data.masks.doctor import examine_masks
from ..data.masks.reader import MaskReader, read_mask_split, split_folders
from ..visualise.data_samples import mask_samples, sheet
from .object_pictures import draw_truth
from .settings import CheckSegmentation

SPLITS: tuple[Split, ...] = ("train", "valid")


def examine(settings: CheckSegmentation) -> Examined:
    """The report of both splits, and what draws a picture of each one's samples."""
    if settings.task != "semantic":
        return _examine_objects(settings)
    reader = MaskReader(settings.dataset)
    found: dict[str, Any] = {}
    for split in SPLITS:
        flags = settings.folders_of(split)
        folders = split_folders(settings.dataset, split, settings.data_root, *flags)
        found[split] = read_mask_split(settings.dataset, folders)
    report = examine_masks(found, reader, settings.workers)
    return report, {
        split: partial(mask_samples, records, reader, settings.samples)
        for split, (records, _) in found.items()
    }


def _examine_objects(settings: CheckSegmentation) -> Examined:
    reader = InstanceReader(settings.dataset)
    found: dict[str, Any] = {
        split: read_instance_split(
            settings.dataset, split, settings.data_root, settings.folders_of(split)
        )
        for split in SPLITS
    }
    report = examine_instances(found, reader, settings.workers)
    return report, {
        split: partial(sheet, records, settings.samples, partial(draw_truth, reader=reader))
        for split, (records, _) in found.items()
    }
