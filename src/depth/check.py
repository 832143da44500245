"""``python -m src.data.check`` of a data set of depth."""

from __future__ import annotations

from functools import partial

from ..data.common.report import Examined
from ..data.depths.doctor import examine_depths
from ..data.depths.reader import read_depth_split
from ..data.depths.settings import CheckDepths
from ..visualise.data_samples import depth_samples


def examine(settings: CheckDepths) -> Examined:
    """The report of both splits, and what draws a picture of each one's samples."""
    dataset = settings.dataset
    found = {
        split: read_depth_split(dataset, split, settings.data_root, *settings.folders_of(split))
        for split in ("train", "valid")
    }
    report = examine_depths(found, dataset, settings.workers)
    return report, {
        split: partial(depth_samples, records, dataset, settings.samples)
        for split, (records, _) in found.items()
    }
