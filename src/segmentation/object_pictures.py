"""Pictures of found objects beside the true ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.structures import Size
from ..data.common.images import read_image, write_image
from ..data.instances import outlines
from ..data.instances.reader import InstanceReader
from ..data.instances.records import InstanceRecord
from ..visualise.draw import contact_sheet
from ..visualise.objects import draw_objects
from .object_results import draw_result


def draw_truth(record: InstanceRecord, reader: InstanceReader) -> np.ndarray:
    """The image of a record under its objects, crowds left out."""
    image = read_image(record.image)
    truth = reader.of(record, Size(image.shape[1], image.shape[0]))
    masks = outlines.from_rles(truth.rles, truth.size).view(bool)[~truth.crowd]
    dataset = reader.dataset
    labels = truth.labels[~truth.crowd]
    return draw_objects(image, masks, labels, dataset.names, stuff=dataset.stuff)


def draw_found(
    found: Mapping[int, Any],
    records: Sequence[InstanceRecord],
    reader: InstanceReader,
    path: Path,
) -> None:
    """A picture with a row for each image: itself, truth, prediction."""
    cells, captions = [], []
    for index in sorted(found):
        image, dataset = read_image(records[index].image), reader.dataset
        drawn = draw_result(image, found[index], dataset.names, dataset.stuff)
        cells += [image, draw_truth(records[index], reader), drawn]
        captions += [records[index].id, "truth", "prediction"]
    if cells:
        write_image(path, contact_sheet(cells, 3, captions, cell=400))
