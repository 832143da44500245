"""``python -m src.data.check --config X``: everything about a data set, faults first.

Writes report.txt, report.json (every single fault) and a picture of samples with their boxes,
masks, classes or depths for each split. Which of these it is shows by the keys of the YAML. The
exit code is 1 when there are faults that would stop a training run.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..core import cli
from ..core.config import load_yaml
from .check_settings import (
    CheckAny,
    CheckData,
    CheckDepths,
    CheckLabels,
    CheckSegmentation,
    kind_of,
)

if TYPE_CHECKING:
    import numpy as np

    from .common.report import FullReport

    Examined = tuple[FullReport[Any], dict[str, Callable[[], np.ndarray | None]]]

log = logging.getLogger(__name__)


def main() -> None:
    """The command."""
    cli.run(_command)


def _command() -> int:
    prog = "python -m src.data.check"
    words = sys.argv[1:]
    given, _ = cli.build_parser(CheckAny, prog).parse_known_args(words)
    settings = cli.parse(kind_of(_keys(given, words)), words, prog)
    return check(settings)


def _keys(given: Any, words: Sequence[str]) -> set[str]:
    """The keys of the YAML, and those that flags stand for (--train-dir: TRAIN_DIR)."""
    flags = {word.split("=")[0] for word in words if word.startswith("--")}
    keys = {flag[2:].replace("-", "_").upper() for flag in flags}
    if hasattr(given, "config") or not keys & {"TRAIN_DIR", "VALID_DIR"}:
        keys |= set(load_yaml(getattr(given, "config", CheckData.model_fields["config"].default)))
    return keys


def check(settings: CheckData) -> int:
    """Examine the data set, log the report, write report and pictures; 1 when it has errors."""
    from ..core.files import require_writable, write_json, write_text
    from ..core.paths import output_folder
    from .common.images import write_image

    folder = require_writable(output_folder(settings.out_dir))
    report, pictures = _EXAMINE[type(settings)](settings)
    for split, draw in pictures.items():
        sheet = draw()
        if sheet is not None:
            write_image(folder / f"samples_{split}.jpg", sheet)
    text = report.text()
    log.info("%s\n", text)
    write_text(folder / "report.txt", text + "\n")
    write_json(folder / "report.json", report.as_dict())
    log.info("report and pictures: %s", folder)
    if report.errors:
        log.info("%d faults would stop a training run", report.errors)
    return 1 if report.errors else 0


def _boxes(settings: CheckData) -> Examined:
    from ..visualise.data_samples import box_samples
    from .boxes.doctor import examine
    from .boxes.reader import read_split

    names = settings.dataset.names
    train = read_split(settings.dataset, "train", settings.data_root)
    valid = read_split(settings.dataset, "valid", settings.data_root)
    found = {"train": train, "valid": valid}
    report = examine(found, names, settings.workers)
    return report, {
        split: partial(box_samples, records, names, settings.samples)
        for split, (records, _) in found.items()
    }


def _masks(settings: CheckSegmentation) -> Examined:
    from ..visualise.data_samples import mask_samples
    from .masks.doctor import examine_masks
    from .masks.reader import MaskReader, read_mask_split, split_folders

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


def _labels(settings: CheckLabels) -> Examined:
    from ..visualise.data_samples import label_samples
    from .labels.doctor import examine_labels
    from .labels.reader import read_labels

    flags = {"train": settings.train_dir, "valid": settings.valid_dir}
    data = read_labels(settings.dataset, settings.data_root, flags=flags)
    report = examine_labels(data, settings.workers)
    return report, {
        split: partial(label_samples, records, data.names, settings.samples)
        for split, records in data.records.items()
    }


def _depths(settings: CheckDepths) -> Examined:
    from ..visualise.data_samples import depth_samples
    from .depths.doctor import examine_depths
    from .depths.reader import read_depth_split

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


_EXAMINE: dict[type[CheckData], Callable[[Any], Examined]] = {
    CheckData: _boxes,
    CheckSegmentation: _masks,
    CheckLabels: _labels,
    CheckDepths: _depths,
}


if __name__ == "__main__":
    main()
