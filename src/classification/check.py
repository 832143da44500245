"""``python -m src.data.check`` of a data set of classification."""

from __future__ import annotations

from functools import partial

from ..data.common.report import Examined
from ..data.labels.doctor import examine_labels
from ..data.labels.reader import read_labels
from ..data.labels.settings import CheckLabels
from ..visualise.data_samples import label_samples


def examine(settings: CheckLabels) -> Examined:
    """The report of both splits, and what draws a picture of each one's samples."""
    flags = {"train": settings.train_dir, "valid": settings.valid_dir}
    data = read_labels(settings.dataset, settings.data_root, flags=flags)
    report = examine_labels(data, settings.workers)
    return report, {
        split: partial(label_samples, records, data.names, settings.samples, data.channels)
        for split, records in data.records.items()
    }
