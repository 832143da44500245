"""What records are made of, as digests: a file is read once, not by each run and process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.files import Stamp
from ..data.common.shards import open_file

Content = Callable[[Any], Sequence[Path | str]]  # a record -> its files, and words on the rest
_AT_ONCE = 1024  # files that wait for a thread
_BYTES = 16


class Contents:
    """Digests of all that each record says.

    memo: a file that remembers the digests of files by path, size and times; a file that it knows
    is not opened again. Raises UserError for a file that cannot be read.
    """

    def __init__(self, records: Sequence[Any], content: Content, memo: Path) -> None:
        self._records, self._content = records, content
        paths = dict.fromkeys(p for r in records for p in content(r) if isinstance(p, Path))
        with locked(memo.parent):
            self._seen, digests = _digest_files(list(paths), memo)
        self.digests = [self._digest(record, digests) for record in records]

    def _digest(self, record: Any, digests: dict[Path, bytes]) -> bytes:
        state = hashlib.blake2b(digest_size=_BYTES)
        for part in self._content(record):
            data = part.encode() if isinstance(part, str) else digests[part]
            state.update(len(data).to_bytes(8, "little") + data)
        return state.digest()

    def unchanged(self, index: int) -> bool:
        """Whether a record's files are still those that were digested."""
        files = (p for p in self._content(self._records[index]) if isinstance(p, Path))
        return all(_key(path) == self._seen[path] for path in files)


def _key(path: Path) -> bytes:
    """A file as it is now, in the memo."""
    text = f"{path.absolute()}|{Stamp.of(path)}"
    return hashlib.blake2b(text.encode(), digest_size=_BYTES).digest()


def _digest_files(paths: list[Path], memo: Path) -> tuple[dict[Path, bytes], dict[Path, bytes]]:
    """Of each file its key and its digest; what the memo lacks is read, and added to it."""
    known = _read_memo(memo)

    def digest(path: Path) -> tuple[bytes, bytes]:
        key = _key(path)  # before the bytes: what is changed meanwhile is read again next time
        if key in known:
            return key, known[key]
        try:
            with open_file(path) as file:
                return key, hashlib.blake2b(file.read(), digest_size=_BYTES).digest()
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from None

    keys, digests = {}, {}
    with ThreadPoolExecutor(4) as pool, memo.open("ab") as file:
        for start in range(0, len(paths), _AT_ONCE):
            part = paths[start : start + _AT_ONCE]
            for path, (key, value) in zip(part, pool.map(digest, part)):
                keys[path], digests[path] = key, value
                if key not in known:
                    file.write(key + value)
    return keys, digests


def _read_memo(memo: Path) -> dict[bytes, bytes]:
    """key -> digest; an entry cut short by a kill goes."""
    try:
        raw = memo.read_bytes()
    except FileNotFoundError:
        return {}
    whole = len(raw) // (2 * _BYTES) * 2 * _BYTES
    if whole < len(raw):
        with memo.open("rb+") as file:
            file.truncate(whole)
    table = np.frombuffer(raw[:whole], f"V{_BYTES}").reshape(-1, 2)
    return {key.tobytes(): value.tobytes() for key, value in table}


def row_keys(digests: Sequence[bytes], views: Sequence[str]) -> list[bytes]:
    """Keys of the rows: for each view (a word on how it is made), one for each record.

    Records of the same content have rows of their own.
    """
    keys = []
    for view in views:
        seen: dict[bytes, int] = {}
        for digest in digests:
            seen[digest] = seen.get(digest, 0) + 1
            state = hashlib.blake2b(digest, digest_size=16)
            state.update(f"{seen[digest]}|{view}".encode())
            keys.append(state.digest())
    return keys


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time (where the system has flock; Windows trains with one process)."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
