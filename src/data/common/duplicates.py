"""Identical pictures of a data set, whatever file they are in."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ...core.structures import Size
from .faults import Fault
from .images import read_bands


def see_image(path: Path, channels: int = 3) -> tuple[Size, bytes]:
    """The size of an image and a digest of its pixels; UserError when it cannot be read, or has
    other channels."""
    image = read_bands(path, channels)
    return Size(image.shape[1], image.shape[0]), digest_of(image)


def digest_of(array: np.ndarray) -> bytes:
    """16 bytes that tell arrays of different shapes or values apart."""
    salt = repr(array.shape).encode()[:16]
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16, salt=salt).digest()


class FirstSeen:
    """What came with each digest first."""

    def __init__(self) -> None:
        self.first: dict[bytes, tuple[str, Path]] = {}

    def fault(self, digest: bytes, split: str, path: Path) -> Fault | None:
        """A warning when the picture was seen before, in the same split or another."""
        where, earlier = self.first.setdefault(digest, (split, path))
        if (where, earlier) == (split, path):
            return None
        kind = "duplicate" if where == split else f"duplicate of {where}"
        return Fault(kind, path, f"the same picture as {earlier} of {where}", "warning")
