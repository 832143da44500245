"""Images read and resized ahead by threads, and gathered into batches of one padded size."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.files import Stamp
from ..core.structures import ResizeMode, Size
from ..data.common import images as data_images


@dataclass
class ImageBatch:
    """Images of one padded size: pixels uint8 [B, H, W, 3] RGB, padded right and bottom; sizes:
    each image's own; rows: their places in the list of paths; stamps: of their files before they
    were read."""

    pixels: Tensor
    sizes: list[Size]
    rows: list[int]
    stamps: list[Stamp] = field(default_factory=list)


@dataclass
class ReadBatch:
    """What comes of one chunk of images: batches, and after the last of them ``end`` with the
    images that could not be read (row, why)."""

    chunk: int
    batch: ImageBatch | None
    end: bool = False
    faults: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Reader:
    """How images are read: resized to fit or fill ``imgsz``, sides padded to multiples of
    ``divisor``, up to ``batch`` together, by ``workers`` threads; pinned memory for CUDA."""

    imgsz: Size
    resize: ResizeMode
    divisor: int
    batch: int
    workers: int
    pin: bool = False

    def read(self, path: Path) -> tuple[np.ndarray, Stamp]:
        """One image, resized: uint8 [H, W, 3], and its file's stamp. Raises UserError."""
        stamp = Stamp.of(path)  # before the bytes: a file that changes meanwhile is seen later
        image = data_images.read_image(path)
        return data_images.resize(image, self.imgsz, self.resize)[0], stamp

    def padded(self, size: Size) -> Size:
        """The size after padding."""
        return Size(*(side + -side % self.divisor for side in size))

    def stack(self, images: Sequence[np.ndarray], rows: Sequence[int]) -> ImageBatch:
        """Images of one padded size as a batch."""
        sizes = [Size(image.shape[1], image.shape[0]) for image in images]
        width, height = self.padded(sizes[0])
        pixels = torch.empty(
            (len(images), height, width, 3), dtype=torch.uint8, pin_memory=self.pin
        )
        canvas = pixels.numpy()
        for slot, image in zip(canvas, images):
            slot[: image.shape[0], : image.shape[1]] = image
            slot[image.shape[0] :] = 0
            slot[:, image.shape[1] :] = 0
        return ImageBatch(pixels, sizes, list(rows))

    def parts(
        self, paths: Sequence[Path], chunks: Sequence[tuple[int, range]]
    ) -> Iterator[ReadBatch]:
        """Read the rows of each (number, rows) chunk, in order; a batch never spans two chunks."""
        with cv2_in_one_thread(), ThreadPoolExecutor(self.workers, "read") as pool:
            ahead = _Ahead(self, pool, paths, [row for _, rows in chunks for row in rows])
            try:
                for number, rows in chunks:
                    yield from self._chunk(number, rows, ahead)
            finally:
                ahead.cancel()

    def _chunk(self, number: int, rows: range, ahead: _Ahead) -> Iterator[ReadBatch]:
        waiting: dict[Size, list[_Read]] = {}
        faults: list[tuple[int, str]] = []
        for row in rows:
            try:
                image, stamp = ahead.next()
            except UserError as error:
                faults.append((row, str(error)))
                continue
            group = waiting.setdefault(self.padded(Size(image.shape[1], image.shape[0])), [])
            group.append(_Read(row, image, stamp))
            if len(group) == self.batch:
                yield ReadBatch(number, self._batch(group))
                group.clear()
        for group in waiting.values():
            if group:
                yield ReadBatch(number, self._batch(group))
        yield ReadBatch(number, None, end=True, faults=faults)

    def _batch(self, group: list[_Read]) -> ImageBatch:
        batch = self.stack([one.image for one in group], [one.row for one in group])
        return replace(batch, stamps=[one.stamp for one in group])


class _Read(NamedTuple):
    """An image that was read: its place in the list of paths, pixels, and its file's stamp."""

    row: int
    image: np.ndarray
    stamp: Stamp


class _Ahead:
    """Images in the order of ``rows``, a few batches of them read before they are asked for."""

    def __init__(
        self, reader: Reader, pool: ThreadPoolExecutor, paths: Sequence[Path], rows: list[int]
    ) -> None:
        self._reader, self._pool, self._paths = reader, pool, paths
        self._rows = iter(rows)
        self._futures: deque[Future[tuple[np.ndarray, Stamp]]] = deque()
        for _ in range(2 * reader.batch + reader.workers):
            self._submit()

    def _submit(self) -> None:
        row = next(self._rows, None)
        if row is not None:
            self._futures.append(self._pool.submit(self._reader.read, self._paths[row]))

    def next(self) -> tuple[np.ndarray, Stamp]:
        """The next image, and its file's stamp. Raises UserError when it cannot be read."""
        self._submit()
        return self._futures.popleft().result()

    def cancel(self) -> None:
        """What has not begun will not be read."""
        for future in self._futures:
            future.cancel()


def default_workers(on_cuda: bool) -> int:
    """Threads that read ahead: few beside a backbone that runs on the same cores."""
    cores = os.cpu_count() or 2
    return min(16, cores) if on_cuda else max(1, min(4, cores // 2))


@contextmanager
def cv2_in_one_thread() -> Iterator[None]:
    """cv2's own thread pool would fight with the readers' threads: one thread a call instead."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
