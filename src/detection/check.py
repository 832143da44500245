"""``python -m src.data.check`` of a data set of detection."""

from __future__ import annotations

from functools import partial

from ..data.boxes.doctor import examine as examine_boxes
from ..data.boxes.reader import read_split
from ..data.boxes.settings import CheckBoxes
from ..data.common.report import Examined
from ..visualise.data_samples import box_samples


def examine(settings: CheckBoxes) -> Examined:
    """The report of both splits, and what draws a picture of each one's samples."""
    names = settings.dataset.names
    train = read_split(settings.dataset, "train", settings.data_root)
    valid = read_split(settings.dataset, "valid", settings.data_root)
    found = {"train": train, "valid": valid}
    report = examine_boxes(found, names, settings.workers)
    return report, {
        split: partial(box_samples, records, names, settings.samples)
        for split, (records, _) in found.items()
    }
