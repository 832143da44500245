"""``python -m src.data.check --config X``: everything about a data set, faults first.

Writes report.txt, report.json (every single fault) and a picture of samples with their boxes for
each split. The exit code is 1 when there are faults that would stop a training run.
"""

from __future__ import annotations

import logging

from src.core import cli
from src.data.settings import CheckData

log = logging.getLogger(__name__)


def main() -> None:
    """The command."""
    cli.run(_command)


def _command() -> int:
    settings = cli.parse(CheckData, prog="python -m src.data.check")
    return check(settings)


def check(settings: CheckData) -> int:
    """Examine the data set, log the report, write report and pictures; 1 when it has errors."""
    from src.core.files import require_writable, write_json, write_text
    from src.core.paths import output_folder
    from src.data.doctor import examine
    from src.data.images import write_image
    from src.data.records import read_split

    folder = require_writable(output_folder(settings.out_dir))
    names = settings.dataset.names
    train = read_split(settings.dataset, "train", settings.data_root)
    valid = read_split(settings.dataset, "valid", settings.data_root)
    report = examine({"train": train, "valid": valid}, names, settings.workers)
    text = report.text()
    log.info("%s\n", text)
    write_text(folder / "report.txt", text + "\n")
    write_json(folder / "report.json", report.as_dict())
    for split, (records, _) in (("train", train), ("valid", valid)):
        sheet = draw_samples(records, names, settings.samples)
        if sheet is not None:
            write_image(folder / f"samples_{split}.jpg", sheet)
    log.info("report and pictures: %s", folder)
    if report.errors:
        log.info("%d faults would stop a training run", report.errors)
    return 1 if report.errors else 0


def draw_samples(records, names, count, side=400):  # type: ignore[no-untyped-def]
    """A contact sheet (uint8 [H, W, 3]) of ``count`` records spread over the split, or None."""
    import numpy as np

    from src.core.errors import UserError
    from src.core.structures import Size
    from src.data.images import read_image, resize
    from src.data.transforms import scale_boxes
    from src.visualise.draw import contact_sheet, draw_detections

    chosen = np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int)
    tiles = []
    for index in chosen.tolist():
        record = records[index]
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
