"""Truth in NPY files: numbers [H, W], or with one axis of length 1."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...core.errors import UserError
from ...core.structures import Size


class FileFormat(NamedTuple):
    """How files of one suffix are read: ``read`` answers numbers [H, W], ``size`` their size (from
    the header where there is one). Both raise UserError."""

    read: Callable[[Path], np.ndarray]
    size: Callable[[Path], Size]


def read_array(path: Path, what: str) -> np.ndarray:
    """The numbers of an NPY file, [H, W]. what: "mask", "depth", for the message of UserError."""
    return _plain(_load(path, what), path, what)


def array_size(path: Path, what: str) -> Size:
    """The size of an NPY file's picture; its numbers stay on the disk."""
    height, width = _plain(_load(path, what, "r"), path, what).shape
    return Size(width, height)


def _load(path: Path, what: str, mode: str | None = None) -> np.ndarray:
    try:
        stored = np.load(path, mmap_mode=mode, allow_pickle=False)  # type: ignore[arg-type]
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"cannot read {what} {path}: {error}") from None
    if not isinstance(stored, np.ndarray) or stored.dtype.kind not in "fiub":
        raise UserError(f"the {what} {path} holds no numbers")
    return stored


def _plain(stored: np.ndarray, path: Path, what: str) -> np.ndarray:
    if stored.ndim == 3 and 1 in (stored.shape[0], stored.shape[2]):
        stored = stored.reshape([side for side in stored.shape if side != 1])
    if stored.ndim != 2:
        raise UserError(f"the {what} {path} has the shape {stored.shape}, not height x width")
    return stored


def npy(what: str) -> FileFormat:
    """The format of NPY files of this kind of truth."""
    return FileFormat(partial(read_array, what=what), partial(array_size, what=what))
