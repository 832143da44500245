"""``python -m src.data.check --config X``: everything about a data set, faults first.

Writes report.txt, report.json (every single fault) and a picture of samples with their boxes or
classes for each split. A YAML with ALL_CLASSES is one of segmentation, others are of detection.
The exit code is 1 when there are faults that would stop a training run.
"""

from __future__ import annotations

import logging

from src.core import cli
from src.core.config import load_yaml
from src.data.mask_settings import CheckMasks
from src.data.settings import CheckData

log = logging.getLogger(__name__)


def main() -> None:
    """The command."""
    cli.run(_command)


def _command() -> int:
    prog = "python -m src.data.check"
    given, _ = cli.build_parser(CheckMasks, prog).parse_known_args()
    path = getattr(given, "config", None) or CheckData.model_fields["config"].default
    if "ALL_CLASSES" in load_yaml(path):
        return check_segmentation(cli.parse(CheckMasks, prog=prog))
    return check(cli.parse(CheckData, prog=prog))


def check(settings: CheckData) -> int:
    """Examine the data set, log the report, write report and pictures; 1 when it has errors."""
    from src.core.files import require_writable
    from src.core.paths import output_folder
    from src.data.doctor import examine
    from src.data.images import write_image
    from src.data.records import read_split

    folder = require_writable(output_folder(settings.out_dir))
    names = settings.dataset.names
    train = read_split(settings.dataset, "train", settings.data_root)
    valid = read_split(settings.dataset, "valid", settings.data_root)
    report = examine({"train": train, "valid": valid}, names, settings.workers)
    for split, (records, _) in (("train", train), ("valid", valid)):
        sheet = draw_samples(records, names, settings.samples)
        if sheet is not None:
            write_image(folder / f"samples_{split}.jpg", sheet)
    return finish(report, folder)


def check_segmentation(settings: CheckMasks) -> int:
    """``check`` for images and masks."""
    from src.core.files import require_writable
    from src.core.paths import output_folder
    from src.data.images import write_image
    from src.data.mask_doctor import examine_masks
    from src.data.masks import MaskReader, read_mask_split, split_folders

    folder = require_writable(output_folder(settings.out_dir))
    reader = MaskReader(settings.dataset)
    found = {}
    for split in ("train", "valid"):
        flags = settings.folders_of(split)
        folders = split_folders(settings.dataset, split, settings.data_root, *flags)
        found[split] = read_mask_split(settings.dataset, folders)
    report = examine_masks(found, reader, settings.workers)
    for split, (records, _) in found.items():
        sheet = draw_mask_samples(records, reader, settings.samples)
        if sheet is not None:
            write_image(folder / f"samples_{split}.jpg", sheet)
    return finish(report, folder)


def finish(report, folder) -> int:  # type: ignore[no-untyped-def]
    """Log and write a report (``text()``, ``as_dict()``, ``errors``); the exit code."""
    from src.core.files import write_json, write_text

    text = report.text()
    log.info("%s\n", text)
    write_text(folder / "report.txt", text + "\n")
    write_json(folder / "report.json", report.as_dict())
    log.info("report and pictures: %s", folder)
    if report.errors:
        log.info("%d faults would stop a training run", report.errors)
    return 1 if report.errors else 0


def draw_mask_samples(records, reader, count, side=400):  # type: ignore[no-untyped-def]
    """A contact sheet of ``count`` pairs spread over the split, under their classes, or None."""
    from src.core.errors import UserError
    from src.core.structures import Size
    from src.data.images import read_image, resize
    from src.data.mask_transforms import resize_mask
    from src.visualise.draw import colour_table, contact_sheet, draw_classes

    colours = colour_table(len(reader.dataset.names), reader.dataset.colours)
    tiles = []
    for record in spread_over(records, count):
        try:
            image, geometry = resize(read_image(record.image), Size(side, side), "fit")
            mask = resize_mask(reader.read(record.mask, geometry.original), geometry.resized)
        except UserError:
            continue  # it is in the report
        tiles.append(draw_classes(image, mask, colours))
    return contact_sheet(tiles, max(1, round(len(tiles) ** 0.5))) if tiles else None


def spread_over(records, count):  # type: ignore[no-untyped-def]
    """``count`` of the records, evenly spread."""
    import numpy as np

    chosen = np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int)
    return [records[index] for index in chosen.tolist()]


def draw_samples(records, names, count, side=400):  # type: ignore[no-untyped-def]
    """A contact sheet (uint8 [H, W, 3]) of ``count`` records spread over the split, or None."""

    from src.core.errors import UserError
    from src.core.structures import Size
    from src.data.images import read_image, resize
    from src.data.transforms import scale_boxes
    from src.visualise.draw import contact_sheet, draw_detections

    tiles = []
    for record in spread_over(records, count):
        try:
            image, geometry = resize(read_image(record.image), Size(side, side), "fit")
        except UserError:
            continue  # it is in the report
        tiles.append(
            draw_detections(image, scale_boxes(record.boxes, geometry), record.labels, names)
        )
    return contact_sheet(tiles, max(1, round(len(tiles) ** 0.5))) if tiles else None


if __name__ == "__main__":
    main()
