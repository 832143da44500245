"""The patches of the same eight images through time, as colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..core.structures import Size
from ..data.common.images import read_image, resize, write_image
from ..visualise.draw import contact_sheet
from ..visualise.pca import fit_projection
from ..visualise.samples import spread

COUNT, CELL = 8, 96


class PcaStrip:
    """Keeps ``pca/epoch_NNNN.png`` (eight images in a column) and makes ``pca_strip.png`` of all:
    a row an image, the picture first, then an epoch a column."""

    def __init__(self, paths: Sequence[Path], side: int, folder: Path) -> None:
        chosen = [paths[i] for i in spread(len(paths), COUNT)]
        size = Size(side, side)
        self.images = [resize(read_image(path), size, "stretch")[0] for path in chosen]
        self.folder = folder

    @torch.no_grad()
    def draw(self, backbone: Any, epoch: int) -> None:
        """Add an epoch."""
        device = next(backbone.parameters()).device
        pixels = torch.from_numpy(np.stack(self.images)).permute(0, 3, 1, 2).to(device)
        was = backbone.training
        backbone.eval()
        ((maps, _),) = backbone.tokens(backbone.normalise(pixels))
        backbone.train(was)
        maps = [one.float().cpu() for one in maps]
        if maps[0].shape[-1] * len(maps) < 4:
            return
        projection = fit_projection(maps)
        column = [projection.picture(one, CELL, CELL) for one in maps]
        write_image(self.folder / "pca" / f"epoch_{epoch:04d}.png", np.concatenate(column))
        self._strip()

    def _strip(self) -> None:
        files = sorted((self.folder / "pca").glob("epoch_*.png"))
        start = [resize(image, Size(CELL, CELL), "stretch")[0] for image in self.images]
        columns = [np.concatenate(start), *(read_image(file) for file in files)]
        captions = ["image", *(f"epoch {int(file.stem[6:])}" for file in files)]
        sheet = contact_sheet(columns, len(columns), captions, cell=CELL * COUNT)
        write_image(self.folder / "pca_strip.png", sheet)
