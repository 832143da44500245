"""WebDataset shards: tar files whose members are listed and read as files are.

A member's address is SHARD.tar/NAME, a plain ``Path``, so that records, kept features, indices and
faults name it as they name a file. Where each member lies is looked up once a process in the tar's
headers; then any is read at random, which keeps the order and the augmentation of an epoch those of
(seed, epoch, index), whatever the workers, the processes and the resumption.
Layout: https://github.com/webdataset/webdataset (a sample is the members of one key).
"""

from __future__ import annotations

import glob
import io
import os
import posixpath
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ...core.errors import UserError
from ...core.files import Stamp, shard_of


def is_shards(source: str | Path) -> bool:
    """Whether a source names shards: ``x.tar``, ``x-{000..009}.tar``, ``x-*.tar``, several
    joined by ``::``, or an address on a network (which ``find_shards`` refuses)."""
    text = str(source)
    ends = text.lower().endswith((".tar", ".tar.gz", ".tgz"))
    return (ends and not os.path.isdir(text)) or text.startswith("pipe:")


def find_shards(source: str | Path) -> list[Path]:
    """The files that a source names, in its order. Raises UserError when one is not there, is
    compressed or on a network, or when the library that spells the names out is not installed."""
    try:
        from webdataset.shardlists import expand_urls
    except ImportError:
        raise UserError(
            f"{source}: reading shards needs webdataset, which is not installed: pip install -r "
            "requirements-extras.txt"
        ) from None
    try:
        named = expand_urls(os.path.expanduser(str(source)))
    except (AssertionError, ValueError) as error:  # ${VARIABLE} unknown, braces not closed
        raise UserError(f"{source}: {error}") from None
    found: list[Path] = []
    for name in named:
        if ":/" in name or name.startswith("pipe:"):
            raise UserError(
                f"{name}: shards are read from disks and network file systems; mount the store, or "
                "copy its shards"
            )
        if not name.lower().endswith(".tar"):
            raise UserError(f"{name}: members are read one by one, so unpack it to a plain .tar")
        paths = sorted(glob.glob(name)) if glob.has_magic(name) else [name]
        missing = [path for path in paths if not os.path.isfile(path)]
        if missing or not paths:
            raise UserError(f"no such shard: {(missing or [name])[0]} (of {source})")
        found += map(Path, paths)
    return found


class Shard:
    """Where the members of a tar file are."""

    def __init__(self, path: str | Path) -> None:
        self.path, self.stamp = Path(path), Stamp.of(path)
        names, places = [], []
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    if member.isreg():
                        name = posixpath.normpath(member.name).lstrip("/")
                        names.append(os.fsencode(name))
                        places.append((member.offset_data, member.size))
                    tar.members = []  # type: ignore[attr-defined]  # else it keeps them all
        except (tarfile.TarError, OSError, EOFError) as error:
            raise UserError(f"cannot read the shard {path}: {error}") from None
        self._names = np.array(names, np.bytes_)  # arrays, which forked workers share
        self._places = np.array(places, np.int64).reshape(-1, 2)
        self._order = np.argsort(self._names, kind="stable")
        twice = np.flatnonzero(self._names[self._order][1:] == self._names[self._order][:-1])
        if len(twice):
            name = os.fsdecode(self._names[self._order[twice[0]]])
            raise UserError(f"the shard {path} has two members called {name}")

    @property
    def names(self) -> list[str]:
        """Of all members, in the order of the tar."""
        return [os.fsdecode(name) for name in self._names]

    def read(self, name: str, file: BinaryIO) -> bytes:
        """The bytes of a member. file: the shard, open. FileNotFoundError when it is not in it."""
        wanted = os.fsencode(name)
        at = int(np.searchsorted(self._names, wanted, sorter=self._order))
        if at == len(self._order) or self._names[self._order[at]] != wanted:
            raise FileNotFoundError(2, f"the shard {self.path} has no such member")
        start, size = self._places[self._order[at]].tolist()
        file.seek(start)
        return file.read(size)


_SHARDS: dict[str, Shard] = {}  # by path, looked up by this process or the one it was forked from


def open_shard(path: str | Path) -> Shard:
    """A shard; its headers are read once, and again when the file has changed. Raises UserError."""
    known = _SHARDS.get(str(path))
    if known is None or known.stamp != Stamp.of(path):
        known = _SHARDS[str(path)] = Shard(path)
    return known


def open_file(path: str | Path) -> BinaryIO:
    """A file, or a member of a shard, for reading. Raises OSError, or UserError for a damaged
    shard."""
    try:
        return open(path, "rb")
    except (NotADirectoryError, FileNotFoundError):
        shard = shard_of(path)
        if shard is None or not os.path.isfile(shard):
            raise
    with open(shard, "rb") as file:
        name = Path(path).relative_to(shard).as_posix()
        return io.BytesIO(open_shard(shard).read(name, file))


def samples(shard: Shard) -> Iterator[tuple[str, dict[str, str]]]:
    """Each key of a shard, and {extension: member} of its members, in the order of the tar."""
    from webdataset.tariterators import base_plus_ext

    found: dict[str, dict[str, str]] = {}
    for name in shard.names:
        key, extension = base_plus_ext(name)
        if key is not None and not Path(name).name.startswith("."):
            found.setdefault(key, {})[extension.lower()] = name
    yield from found.items()
