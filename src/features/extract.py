"""Features of many images: batches, chunks that survive a kill, shards of torchrun."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.files import Stamp, require_writable
from ..core.progress import Progress
from ..core.structures import Size
from ..data.common.images import fitted_size, image_size_of, list_images
from ..engine.distributed import is_main, rank, world
from .chunks import Chunk, ChunkStore, work_folder
from .files import require_pyarrow, write_features
from .model import FeatureExtractor, build_feature_extractor
from .reading import ReadBatch, Reader, default_workers
from .settings import ExtractOptions

log = logging.getLogger(__name__)

_PATIENCE = 60.0  # seconds without a chunk of the other processes, or ten times what one takes


@dataclass
class _Answer:
    """A part with its features on their way to the host."""

    part: ReadBatch
    host: Tensor | None = None
    done: Any = None  # torch.cuda.Event after the copy

    def array(self) -> np.ndarray:
        """Wait for the copy: float32 [n, ...]."""
        if self.done is not None:
            self.done.synchronize()
        assert self.host is not None
        return self.host.numpy()


def _start(model: FeatureExtractor, part: ReadBatch) -> _Answer:
    """Submit a part; on CUDA nothing is waited for."""
    if part.batch is None:
        return _Answer(part)
    features = model(part.batch)
    if features.device.type != "cuda":
        return _Answer(part, features)
    host = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
    host.copy_(features, non_blocking=True)
    done = torch.cuda.Event()
    done.record()
    return _Answer(part, host, done)


def compute(
    model: FeatureExtractor,
    paths: Sequence[Path],
    chunks: Sequence[tuple[int, range]],
    *,
    batch: int,
    workers: int | None = None,
) -> Iterator[tuple[int, Chunk]]:
    """The features of each chunk (number, rows of ``paths``), in order, as float32.

    Reading, the backbone and the copies back overlap. Unreadable images become faults.
    """
    on_cuda = model.device.type == "cuda"
    reader = Reader(
        imgsz=model.imgsz,
        resize=model.resize,
        divisor=model.divisor,
        batch=batch,
        workers=workers or default_workers(on_cuda),
        pin=on_cuda,
    )
    waiting: deque[_Answer] = deque()
    gathered = _Gathered()
    for part in reader.parts(paths, chunks):
        waiting.append(_start(model, part))
        while len(waiting) > (2 if on_cuda else 0):
            yield from gathered.take(waiting.popleft())
    while waiting:
        yield from gathered.take(waiting.popleft())


@dataclass
class _Gathered:
    """The rows of the chunk that is being done."""

    rows: list[int] = field(default_factory=list)
    stamps: list[Stamp] = field(default_factory=list)
    blocks: list[np.ndarray] = field(default_factory=list)

    def take(self, answer: _Answer) -> Iterator[tuple[int, Chunk]]:
        """Add a batch; the chunk, when this was its end."""
        part = answer.part
        if part.batch is not None:
            self.rows += part.batch.rows
            self.stamps += part.batch.stamps
            self.blocks.append(answer.array())
        if part.end:
            yield part.chunk, self._chunk(part.faults)
            self.rows, self.stamps, self.blocks = [], [], []

    def _chunk(self, faults: list[tuple[int, str]]) -> Chunk:
        rows = np.array(self.rows, np.int64)
        stamps = np.array(self.stamps, np.int64).reshape(-1, 3)
        if not self.rows:
            return Chunk(rows, np.zeros((0, 0), np.float32), faults, stamps)
        order = np.argsort(rows)
        return Chunk(rows[order], np.concatenate(self.blocks)[order], faults, stamps[order])


def fill_store(
    model: FeatureExtractor,
    paths: Sequence[Path],
    store: ChunkStore,
    *,
    batch: int,
    workers: int | None,
    dtype: str = "float32",
) -> None:
    """Compute this process's share of the chunks that the store lacks.

    The first process then waits for those of the others. torchrun ends the processes of a machine
    when one of them fails, not those of other machines: what does not come, the first process
    computes, too. After Ctrl-C or a kill, the chunks that were finished stay.
    """
    mine = range(rank(), len(store.files), world())
    missing = [(n, store.ranges[n]) for n in mine if not store.done(n)]
    total = sum(len(rows) for _, rows in missing)
    kept = sum(len(store.ranges[n]) for n in mine) - total
    if kept and is_main():
        log.info("resuming: %d images were done before, %d are left", kept, total)
    progress = Progress("chunks", len(missing), enabled=is_main())
    faults = 0
    writing: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1, "write") as writer:
        try:
            for number, chunk in compute(model, paths, missing, batch=batch, workers=workers):
                chunk.features = chunk.features.astype(dtype, copy=False)
                writing.append(writer.submit(store.save, number, chunk))
                progress.advance(len(chunk.rows) + len(chunk.faults))
                faults += len(chunk.faults)
                progress.show({"unreadable": faults})
                while writing and (writing[0].done() or len(writing) > 4):
                    writing.popleft().result()
        except KeyboardInterrupt:
            log.info("interrupted: the same command goes on where this one ended")
            raise
        finally:
            progress.close()
        for future in writing:
            future.result()
    if total and is_main():
        log.info("%d images in %.1f s: %.1f images/s", total, progress.seconds, progress.rate)
    if is_main() and world() > 1:
        patience = max(_PATIENCE, 10 * progress.seconds / max(1, len(missing)))
        lost = store.wait(patience)
        if lost:
            log.warning(
                "%d chunks of other processes have not come, and none of them for %.0f s: did a "
                "machine fail, or do they not share the folder %s? They are computed here",
                *(len(lost), patience, store.folder),
            )
        for number in reversed(lost):  # from the end, should the others go on after all
            if not store.done(number):
                one = [(number, store.ranges[number])]
                for _, chunk in compute(model, paths, one, batch=batch, workers=workers):
                    chunk.features = chunk.features.astype(dtype, copy=False)
                    store.save(number, chunk)


def read_faults(store: ChunkStore, paths: Sequence[Path]) -> list[dict[str, str]]:
    """The images that no row could be made of, each {"path", "why"}, in order; logged as well."""
    faults = []
    for number in range(len(store.files)):
        for row, why in store.load(number).faults:
            log.error("%s", why)
            faults.append({"path": str(paths[row]), "why": why})
    return faults


def run_extract(options: ExtractOptions) -> int:
    """``python -m src.features extract``. The exit code: 0, or 1 when images were unreadable."""
    if options.out.suffix.lower() == ".parquet":
        require_pyarrow()
    paths = list_images(options.input)
    require_writable(options.out.parent)
    model = build_feature_extractor(options, options.what, options.unit)
    if options.what == "map":
        _require_one_size(paths, model)
    _require_space(options, model, len(paths))
    settings = {
        **model.identity.plain(),
        "precision": str(model.dtype).removeprefix("torch."),
        "store": options.store,
    }
    store = ChunkStore(work_folder(options.out), settings, paths, options.chunk)
    fill_store(
        model, paths, store, batch=options.batch, workers=options.workers, dtype=options.store
    )
    if rank() != 0:
        return 0
    faults = read_faults(store, paths)
    _merge(options, store, paths, settings, faults)
    store.remove()
    return 1 if faults else 0


def _merge(
    options: ExtractOptions,
    store: ChunkStore,
    paths: Sequence[Path],
    settings: dict[str, Any],
    faults: list[dict[str, str]],
) -> None:
    """Chunks -> the feature file, a chunk in memory at a time."""
    rows = len(paths) - len(faults)
    if not rows:
        store.remove()
        raise UserError(f"none of the {len(paths)} images of {' '.join(options.input)} can be read")
    numbers = range(len(store.files))
    row_shape = next(c.features.shape[1:] for c in map(store.load, numbers) if len(c.rows))

    def blocks() -> Iterator[tuple[np.ndarray, list[str]]]:
        for chunk in map(store.load, numbers):
            if len(chunk.rows):
                yield chunk.features, [str(paths[row]) for row in chunk.rows]

    shape = (rows, *row_shape)
    write_features(options.out, blocks(), shape, np.dtype(options.store), settings, faults)
    sizes = " x ".join(str(side) for side in shape)
    log.info("%s: %s %s (and its .json with the paths)", options.out, sizes, options.store)
    if faults:
        log.error("%d of %d images could not be read and have no row", len(faults), len(paths))


def _require_one_size(paths: Sequence[Path], model: FeatureExtractor) -> None:
    """Whole maps go into one array: UserError, before any work, when their sizes differ."""
    if model.resize == "stretch":
        return
    seen: dict[tuple[int, int], Path] = {}
    for path in paths:
        try:
            size = fitted_size(image_size_of(path), model.imgsz, model.resize)
        except UserError:
            continue  # told when it is read
        width, height = (math.ceil(side / model.divisor) * model.divisor for side in size)
        seen.setdefault((width, height), path)
    if len(seen) > 1:
        (size_a, a), (size_b, b) = list(seen.items())[:2]
        raise UserError(
            f"the maps would differ in size: {a} becomes {size_a[0]}x{size_a[1]} pixels and {b} "
            f"{size_b[0]}x{size_b[1]}; give --resize stretch, or images of one shape"
        )


def _require_space(options: ExtractOptions, model: FeatureExtractor, count: int) -> None:
    """UserError when the chunks and the result will not fit on the disk."""
    numbers = model.channels
    if options.what == "map":
        stride = model.backbone.output_shape()
        step = list(stride.values())[-1].stride
        width, height = Size(*options.imgsz)
        numbers *= math.ceil(width / step) * math.ceil(height / step)
    bytes_each = 4 if options.store == "float32" else 2
    require_writable(options.out.parent, 2 * count * numbers * bytes_each)
