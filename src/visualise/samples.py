"""Training samples as the model gets them, as one picture."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..data.common.images import shown_bands, write_image
from ..engine.distributed import is_main
from .draw import contact_sheet

log = logging.getLogger(__name__)

MOST = 16


def spread(count: int, wanted: int) -> list[int]:
    """``wanted`` indices (or all), evenly spread over ``count``."""
    return np.linspace(0, count - 1, min(count, wanted)).round().astype(int).tolist()


def save_samples(
    loader: Any, draw: Callable[[np.ndarray, dict[str, np.ndarray]], np.ndarray], path: Path
) -> None:
    """The first training batch, drawn by the main process.

    draw: (image uint8 [H, W, 3], its target) -> a picture.
    """
    if not is_main():
        return
    loader.set_epoch(0)
    batch = next(iter(loader))
    drawn = [
        draw(
            shown_bands(image.permute(1, 2, 0).contiguous().numpy()),
            {name: value.numpy() for name, value in target.items()},
        )
        for image, target in zip(batch.image_list()[:MOST], batch.targets)
    ]
    write_image(path, contact_sheet(drawn, columns=4))
    log.info("transformed samples are in %s", path)
