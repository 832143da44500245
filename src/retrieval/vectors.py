"""Unit vectors of a list of images, by the extraction that survives a kill."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import UserError
from ..core.files import Stamp
from ..engine.distributed import rank
from ..features.chunks import ChunkStore
from ..features.extract import fill_store, read_faults
from ..features.model import FeatureExtractor
from ..features.settings import RunOptions

CHUNK = 256


@dataclass
class ImageVectors:
    """float32 [N, D] unit vectors, the path of each row, its file's stamp when it was read, and
    the images left out."""

    vectors: np.ndarray
    paths: list[Path]
    stamps: list[Stamp]
    faults: list[dict[str, str]]


def index_vectors(
    model: FeatureExtractor, paths: Sequence[Path], folder: Path, options: RunOptions
) -> ImageVectors | None:
    """The vectors of all images; finished chunks lie in ``folder`` until ``forget`` (a killed
    command goes on there). None in torchrun's processes other than the first, which have only
    their share to do. Raises UserError when no image can be read.
    """
    settings = {**model.identity.plain(), "precision": str(model.dtype)}
    store = ChunkStore(folder, settings, paths, CHUNK)
    fill_store(model, paths, store, batch=options.batch, workers=options.workers)
    if rank() != 0:
        return None
    faults = read_faults(store, paths)
    if len(faults) == len(paths):
        raise UserError(f"none of the {len(paths)} images can be read; {faults[0]['why']}")
    chunks = [chunk for chunk in map(store.load, range(len(store.files))) if len(chunk.rows)]
    rows = [paths[row] for chunk in chunks for row in chunk.rows]
    stamps = [Stamp(*stamp) for chunk in chunks for stamp in chunk.stamps.tolist()]
    return ImageVectors(np.concatenate([chunk.features for chunk in chunks]), rows, stamps, faults)


def forget(folder: Path) -> None:
    """Delete the finished chunks: what they were for is written."""
    shutil.rmtree(folder, ignore_errors=True)
