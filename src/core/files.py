"""Writing files so that a kill, a full disk or a second run never leaves half of one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from .errors import UserError


class Stamp(NamedTuple):
    """What tells a file from what it was before: bytes, and the times (ns) when it was written and
    when it was last changed; the latter moves when a program sets the former back. (-1, 0, 0): no
    such file."""

    size: int
    written: int
    changed: int

    @classmethod
    def of(cls, path: str | Path) -> Stamp:
        """The file as it is now; of a member of a tar file, the tar file's."""
        try:
            status = os.stat(path)
        except OSError:
            shard = shard_of(path)
            return cls.of(shard) if shard is not None else cls(-1, 0, 0)
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def shard_of(path: str | Path) -> str | None:
    """The tar file in an address SHARD.tar/NAME of one of its members, else None."""
    head, found, _ = os.fspath(path).partition(f".tar{os.sep}")
    return f"{head}.tar" if found else None


def resolved(paths: Iterable[str | Path]) -> Iterator[str]:
    """Absolute paths without links, as ``Path.resolve`` has them; a folder is looked up once."""
    real: dict[str, str] = {}
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in real:
            real[folder] = os.path.realpath(folder)
        whole = os.path.join(real[folder], name)
        yield os.path.realpath(whole) if os.path.islink(whole) else whole


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``; on success it is synced and renamed over ``path``.

    The suffix is kept, for writers that look at it. On any error the temporary file is removed
    and the old file stays as it was; an OSError (full disk, read-only folder) is a UserError.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON atomically, indented by one space."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def require_writable(folder: str | Path, needed_bytes: int = 0) -> Path:
    """Make the folder and prove that it can be written, with ``needed_bytes`` free.

    Raises UserError before any work is lost to a read-only folder or a full disk.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}"
        probe.write_bytes(b"0")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"cannot write to {folder}: {error.strerror or error}; choose another --out-dir"
        ) from None
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise UserError(
            f"{folder} has {free / 2**20:.0f} MiB free and this needs about "
            f"{needed_bytes / 2**20:.0f} MiB; free some space or choose another --out-dir"
        )
    return folder
