"""Rows of features on disk that outlive a run: what a frozen backbone said of each image.

A folder holds ``about.json`` (all that the rows depend on beside the pictures), ``table.bin`` (a
key, a checksum and the shapes of each row) and ``rows.bin`` (rows of one length). A row is written
before its entry in the table, and the checksum covers it: a kill at any moment leaves whole rows,
or rows that are seen to be damaged and made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..core.errors import UserError
from ..core.files import require_writable, write_json
from .digests import locked

log = logging.getLogger(__name__)

VERSION = 2
_ALIGN = 8


@dataclass(frozen=True)
class ArraySpec:
    """One array of a row: its largest shape, and the type it is kept in."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """Room in a row."""
        size = math.prod(self.shape) * np.dtype(self.dtype).itemsize
        return -(-size // _ALIGN) * _ALIGN


class RowPart(NamedTuple):
    """Where an array lies in a row: first and last + 1 of its bytes, its type and shape."""

    start: int
    stop: int
    dtype: str
    shape: tuple[int, ...]


class FeatureCache:
    """Rows by key, below ``root``, in a folder named after ``settings`` and ``entries``.

    settings: what the rows depend on (plain values): backbone, weights, transform ...; entries:
    the arrays of a row by name; keys: 16 bytes for each row that is wanted (``row_keys``). Rows
    that are there already are found by their keys, others get room at the end, so that a changed
    picture costs its own row alone. Rows are asked for by their place in ``keys``.

    A damaged folder is told and built anew. Raises UserError: no right or room to write.
    """

    def __init__(
        self,
        root: Path,
        settings: Mapping[str, Any],
        entries: Mapping[str, ArraySpec],
        keys: Sequence[bytes],
    ) -> None:
        self.entries = dict(entries)
        about = {
            "version": VERSION,
            "settings": dict(settings),
            "entries": {name: [list(e.shape), e.dtype] for name, e in self.entries.items()},
        }
        self._about = json.loads(json.dumps(about, sort_keys=True))
        digest = hashlib.sha256(json.dumps(self._about, sort_keys=True).encode()).hexdigest()
        self.folder = root / f"{settings.get('backbone', 'features')}-{digest[:16]}"
        self.row_bytes = sum(entry.bytes for entry in self.entries.values())
        axes = sum(len(entry.shape) for entry in self.entries.values())
        self._type = np.dtype(
            [("key", "V16"), ("whole", "<u4"), ("crc", "<u4"), ("shapes", "<u4", (axes,))]
        )
        require_writable(root)
        with locked(root):
            self._table = self._open()
            self._slots = self._find(keys)
        self._checked = np.zeros(len(self._table), bool)
        self._files = [
            path.open("rb+", buffering=0) for path in (self._rows_path, self._table_path)
        ]

    @property
    def _rows_path(self) -> Path:
        return self.folder / "rows.bin"

    @property
    def _table_path(self) -> Path:
        return self.folder / "table.bin"

    def _open(self) -> np.ndarray:
        """The table on disk; an empty one in a new folder."""
        if self.folder.exists():
            try:
                content = json.loads((self.folder / "about.json").read_text(encoding="utf-8"))
                raw = self._table_path.read_bytes()
                rows = self._rows_path.stat().st_size
                if content != self._about:
                    raise ValueError("about.json says something else")
                if len(raw) % self._type.itemsize:
                    raise ValueError("table.bin is cut short")
                if rows < len(raw) // self._type.itemsize * self.row_bytes:
                    raise ValueError("rows.bin is cut short")
                return np.frombuffer(raw, self._type).copy()
            except (OSError, ValueError) as error:
                log.warning("the feature cache %s is damaged (%s): built anew", self.folder, error)
                shutil.rmtree(self.folder)
        try:
            self.folder.mkdir(parents=True)
            self._rows_path.touch()
            self._table_path.touch()
        except OSError as error:
            raise UserError(f"cannot write {self.folder}: {error.strerror or error}") from None
        write_json(self.folder / "about.json", self._about)
        return np.zeros(0, self._type)

    def _find(self, keys: Sequence[bytes]) -> np.ndarray:
        """The place of each key in the table; room for those that are new."""
        known = {key: slot for slot, key in enumerate(self._keys())}
        fresh = [key for key in dict.fromkeys(keys) if key not in known]
        if fresh:
            grown = np.zeros(len(fresh), self._type)
            grown["key"] = np.frombuffer(b"".join(fresh), "V16")
            known.update({key: len(self._table) + i for i, key in enumerate(fresh)})
            self._table = np.concatenate([self._table, grown])
            with self._rows_path.open("rb+") as file:
                file.truncate(len(self._table) * self.row_bytes)
            with self._table_path.open("ab") as file:
                file.write(grown.tobytes())
        return np.array([known[key] for key in keys], np.int64)

    def _keys(self) -> list[bytes]:
        return [key.tobytes() for key in self._table["key"]]

    def __len__(self) -> int:
        return len(self._slots)

    def has(self, row: int) -> bool:
        """Whether the row is there (as far as the table says)."""
        return bool(self._table["whole"][self._slots[row]])

    @property
    def count(self) -> int:
        """How many of the rows are there."""
        return int(np.count_nonzero(self._table["whole"][self._slots]))

    @property
    def missing_bytes(self) -> int:
        """What the rows that are not there yet will take."""
        slots = np.unique(self._slots)
        return int(np.count_nonzero(self._table["whole"][slots] == 0)) * self.row_bytes

    @property
    def total_bytes(self) -> int:
        """What all rows that are wanted take on the disk, at most."""
        return len(np.unique(self._slots)) * self.row_bytes

    def refresh(self) -> None:
        """See what other processes have written."""
        with self._table_path.open("rb") as file:
            raw = file.read(self._table.nbytes)
        self._table = np.frombuffer(raw, self._type).copy()

    def write(self, row: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep a row. Each array is at most as large as its entry. Raises UserError (disk full)."""
        parts: list[bytes] = []
        shapes: list[int] = []
        for name, entry in self.entries.items():
            array = np.ascontiguousarray(arrays[name], entry.dtype)
            assert array.ndim == len(entry.shape), (name, array.shape, entry)
            assert all(a <= b for a, b in zip(array.shape, entry.shape)), (name, array.shape)
            parts.append(array.tobytes().ljust(entry.bytes, b"\0"))
            shapes += array.shape
        content = b"".join(parts)
        slot = int(self._slots[row])
        new = np.zeros((), self._type)
        new["key"], new["whole"], new["shapes"] = self._table["key"][slot], 1, shapes
        new["crc"] = zlib.crc32(content, zlib.crc32(new["shapes"].tobytes()))
        try:
            for file, data in zip(self._files, (content, new.tobytes())):
                file.seek(slot * len(data))
                file.write(data)
        except OSError as error:
            raise UserError(f"cannot write {self.folder}: {error.strerror or error}") from None
        self._table[slot] = new
        self._checked[slot] = True

    def read_into(self, row: int, room: memoryview) -> dict[str, RowPart] | None:
        """Read a row's bytes, in one piece, into ``room`` [row_bytes]; where its arrays lie there.

        None when it is not there, or damaged (told). The checksum is compared when this process
        reads a row for the first time. May be called by several threads.
        """
        slot = int(self._slots[row])
        about = self._table[slot].copy()
        if not about["whole"]:
            return None
        with self._rows_path.open("rb", buffering=0) as file:
            file.seek(slot * self.row_bytes)
            read = file.readinto(room)
        if not self._checked[slot]:
            shape_sum = zlib.crc32(about["shapes"].tobytes())
            if read != self.row_bytes or zlib.crc32(room, shape_sum) != int(about["crc"]):
                log.warning("the feature cache %s has a damaged row: made again", self.folder)
                self._table["whole"][slot] = 0
                return None
            self._checked[slot] = True
        shapes = about["shapes"].tolist()
        parts, start = {}, 0
        for name, entry in self.entries.items():
            shape, shapes = tuple(shapes[: len(entry.shape)]), shapes[len(entry.shape) :]
            size = math.prod(shape) * np.dtype(entry.dtype).itemsize
            parts[name] = RowPart(start, start + size, entry.dtype, shape)
            start += entry.bytes
        return parts

    def read(self, row: int) -> dict[str, np.ndarray] | None:
        """The arrays of a row by name, or None: see ``read_into``."""
        raw = np.empty(self.row_bytes, np.uint8)
        parts = self.read_into(row, raw.data)
        if parts is None:
            return None
        return {
            name: raw[part.start : part.stop].view(part.dtype).reshape(part.shape)
            for name, part in parts.items()
        }
