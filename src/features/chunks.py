"""Finished chunks of an extraction on disk: what a killed run has done is not done again."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..core.errors import UserError
from ..core.files import Stamp, atomic_path
from ..data.common import images

log = logging.getLogger(__name__)

Fault = tuple[int, str]


@dataclass
class Chunk:
    """Rows of some images: rows int64 [n] ascending, features [n, ...], (row, why) of those that
    could not be read, and stamps int64 [n, 3] (``core.files.Stamp``) of their files when they
    were. Rows count from 0 in the list of all images."""

    rows: np.ndarray
    features: np.ndarray
    faults: list[Fault]
    stamps: np.ndarray


class ChunkStore:
    """Chunks in a folder beside the result, each under a name made of all it depends on.

    settings: what the features depend on; the version of the reading, the files' paths, sizes
    and times (of writing and of change: see ``core.files.Stamp``) are added here, so that a changed
    picture is read again and a grown folder costs its new chunks alone.
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any], paths: Sequence[Path], size: int
    ) -> None:
        self.folder, self._paths = folder, paths
        self.ranges = [
            range(start, min(start + size, len(paths))) for start in range(0, len(paths), size)
        ]
        key = json.dumps({**settings, "reading": images.VERSION}, sort_keys=True)
        self.files = [folder / f"{self._name(key, rows)}.safetensors" for rows in self.ranges]

    def _name(self, key: str, rows: range) -> str:
        digest = hashlib.sha256(key.encode())
        for row in rows:
            path = self._paths[row]
            digest.update(f"{path}|{Stamp.of(path)}\n".encode())
        return digest.hexdigest()[:24]

    def done(self, number: int) -> bool:
        """Whether the chunk is on disk."""
        return self.files[number].is_file()

    def save(self, number: int, chunk: Chunk) -> None:
        """Write the chunk atomically. Rows in the file count from the chunk's first.
        Raises UserError (full disk)."""
        first = self.ranges[number].start
        faults = [(row - first, why) for row, why in chunk.faults]
        tensors = {
            "rows": chunk.rows - first,
            "features": np.ascontiguousarray(chunk.features),
            "stamps": chunk.stamps,
        }
        with atomic_path(self.files[number]) as temporary:
            try:
                save_file(tensors, temporary, {"faults": json.dumps(faults)})
            except SafetensorError as error:
                raise OSError(str(error)) from None

    def load(self, number: int) -> Chunk:
        """Read a chunk. UserError when the file is damaged."""
        path, first = self.files[number], self.ranges[number].start
        try:
            with safe_open(path, "np") as file:
                rows, features = file.get_tensor("rows"), file.get_tensor("features")
                stamps = file.get_tensor("stamps")
                faults = json.loads(file.metadata()["faults"])
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"the work file {path} is damaged ({error}); delete it and run again"
            ) from None
        return Chunk(rows + first, features, [(row + first, why) for row, why in faults], stamps)

    def wait(self, patience: float, seconds: float = 0.2) -> list[int]:
        """Until the chunks of every process are there, or none has come for ``patience`` seconds;
        those that are missing then."""
        missing = [n for n in range(len(self.files)) if not self.done(n)]
        if missing:
            log.info("waiting for the other processes: %d chunks", len(missing))
        since = time.monotonic()
        while missing and time.monotonic() < since + patience:
            time.sleep(seconds)
            left = [n for n in missing if not self.done(n)]
            since = time.monotonic() if len(left) < len(missing) else since
            missing = left
        return missing

    def remove(self) -> None:
        """Delete the folder: the result is written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def work_folder(out: Path) -> Path:
    """Where the chunks of a result lie until it is whole: a hidden folder beside it."""
    return out.with_name(f".{out.name}.part")
