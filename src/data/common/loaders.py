"""Batches of images and their truth, the same whatever the number of workers and processes."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import signal
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ...core.errors import UserError
from ...core.structures import Geometry
from .shapes import input_shapes
from .shared import SharedRecords

log = logging.getLogger(__name__)

Canvas = Callable[[int, int], tuple[int, int]]
Key = tuple[int, int]  # (epoch, index): travels with the request, so workers need no set_epoch


@dataclass
class Packed:
    """The targets of a batch, one tensor a name: what is many small tensors moves at once.

    flat: {name: all values in a row}; shapes: {name: the shape of each image's own}.
    """

    flat: dict[str, Tensor]
    shapes: dict[str, list[torch.Size]]

    @classmethod
    def of(cls, targets: Sequence[Mapping[str, Tensor]]) -> Packed:
        """Targets of the same names."""
        names = targets[0] if targets else ()
        return cls(
            {name: torch.cat([one[name].reshape(-1) for one in targets]) for name in names},
            {name: [one[name].shape for one in targets] for name in names},
        )

    def map(self, move: Callable[[Tensor], Tensor]) -> Packed:
        """The same with every tensor moved."""
        return replace(self, flat={name: move(flat) for name, flat in self.flat.items()})

    def each(self, count: int) -> list[dict[str, Tensor]]:
        """The targets of ``count`` images: views."""
        targets: list[dict[str, Tensor]] = [{} for _ in range(count)]
        for name, flat in self.flat.items():
            shapes = self.shapes[name]
            for target, part, shape in zip(
                targets, flat.split([shape.numel() for shape in shapes]), shapes
            ):
                target[name] = part.view(shape)
        return targets


@dataclass
class Batch:
    """Images of one step on one process.

    images: uint8 [B, 3, H, W] RGB (float32 [B, C, H, W] of other channels), padded right and
    bottom with zeros to the largest of the batch (in memory [B, H, W, C], torch's channels_last);
    sizes: (h, w) before the padding;
    targets: the tensors of each image by name, as its task has them (``DetectionTarget`` in
    resized pixels, ``SegmentationTarget``), views of ``packed``; indices: positions in the list
    of records; geometries: how each original became its image.
    """

    images: Tensor
    sizes: list[tuple[int, int]]
    targets: list[Any]
    indices: list[int]
    geometries: list[Geometry]
    packed: Packed | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def image_list(self) -> list[Tensor]:
        """uint8 [3, h, w] each: views without the padding."""
        return [image[:, :h, :w] for image, (h, w) in zip(self.images, self.sizes)]

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory (called by the loader on CUDA machines)."""
        return self._map(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device; from pinned memory the copies do not wait."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def _map(self, move: Callable[[Tensor], Tensor]) -> Batch:
        packed = (self.packed or Packed.of(self.targets)).map(move)
        targets = packed.each(len(self))
        return replace(self, images=move(self.images), targets=targets, packed=packed)

    def __getstate__(self) -> dict[str, Any]:
        """From a worker the targets come as they are packed: a tensor a name, not an image."""
        packed = self.packed or Packed.of(self.targets)
        return {**self.__dict__, "targets": [], "packed": packed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        assert self.packed is not None
        self.targets = self.packed.each(len(self))


class LoadedSample(NamedTuple):
    """One image as the model gets it: uint8 [H, W, 3], its truth by name, how it was resized."""

    image: np.ndarray
    target: dict[str, np.ndarray]
    geometry: Geometry


class Transform(Protocol):
    """Reads a record of its task and transforms it; every random choice comes from ``seed``.

    Raises UserError for a file that cannot be used. Where a loader is given a ``canvas``, it has
    also ``size``, of the model's input, and ``output_size(original: Size) -> Size``: what ``load``
    makes of an image of that size, whatever is drawn (batches are then of one shape).
    """

    def load(self, record: Any, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray], Geometry]:
        """Image uint8 [H, W, 3], target arrays by name, geometry."""

    def cache_key(self) -> dict[str, Any]:
        """Plain values, all that ``load`` does with a record: what kept features are found by.

        It holds a VERSION, which is raised with every change of the code that changes a pixel or a
        target, and the constants.
        """


@dataclass(frozen=True)
class Phases:
    """A transform for the first ``change`` epochs, and one for those after them.

    Batches are made by the sizes of the latter; all samples of the former are of one size.
    """

    first: Transform
    then: Transform
    change: int

    def at(self, epoch: int) -> Transform:
        """That of an epoch (from 0)."""
        return self.first if epoch < self.change else self.then


@dataclass
class _Sample:
    loaded: LoadedSample
    index: int


@dataclass
class _Failure:
    """A UserError on its way from a worker: raised there, torch would wrap it in a traceback."""

    message: str


class Samples(Dataset):
    """Reads and transforms record ``index`` of ``epoch``, seeded from (seed, epoch, index)."""

    def __init__(self, records: Sequence[Any], transform: Transform | Phases, seed: int) -> None:
        self.records = records if isinstance(records, SharedRecords) else SharedRecords(records)
        self.transform, self.seed = transform, seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: Key) -> _Sample | _Failure:
        epoch, index = key
        seed = int(np.random.SeedSequence((self.seed, epoch, index)).generate_state(1)[0])
        transform = self.transform
        if isinstance(transform, Phases):
            transform = transform.at(epoch)
        try:
            return _Sample(LoadedSample(*transform.load(self.records[index], seed)), index)
        except UserError as error:
            return _Failure(str(error))


def collate(samples: list[_Sample | _Failure]) -> Batch | _Failure:
    """Samples into a Batch; the first failure stands for the whole batch."""
    good: list[_Sample] = []
    for sample in samples:
        if isinstance(sample, _Failure):
            return sample
        good.append(sample)
    loaded = [sample.loaded for sample in good]
    sizes = [(one.image.shape[0], one.image.shape[1]) for one in loaded]
    height, width = (max(side) for side in zip(*sizes))
    first = torch.from_numpy(loaded[0].image)
    images = torch.empty((len(good), height, width, first.shape[2]), dtype=first.dtype)
    for canvas, one, (h, w) in zip(images.numpy(), loaded, sizes):
        canvas[:h, :w] = one.image
        canvas[h:] = 0
        canvas[:h, w:] = 0
    packed = Packed.of([{k: torch.from_numpy(v) for k, v in one.target.items()} for one in loaded])
    return Batch(
        images=images.permute(0, 3, 1, 2),
        sizes=sizes,
        targets=packed.each(len(good)),
        indices=[sample.index for sample in good],
        geometries=[one.geometry for one in loaded],
        packed=packed,
    )


class GlobalBatches(Sampler[list[Key]]):
    """One rank's share of the global batches of an epoch.

    The order is a permutation seeded from (seed, epoch). The images of each shape are cut, in this
    order, into global batches (aspect-ratio groups, as in torchvision's detection references), and
    these are permuted. Each is dealt out strided (rank, rank + world, ...), so all ranks hold
    equally many images at every step and the mean of their gradients is that of the global batch.
    Only when a shape's last batch does not divide by ``world`` is it filled up, with its first
    images of the epoch (at most world - 1 of them are seen twice); on one process nothing is, and
    the last batch is the smaller one.

    chances: [N], sum 1: images are drawn by these, with repetition, instead of once each; of each
    shape equally many in every epoch. shapes: [N], what their images become (None: one shape).
    """

    def __init__(
        self,
        count: int,
        batch: int,
        seed: int,
        rank: int,
        world: int,
        chances: np.ndarray | None = None,
        shapes: Sequence[Any] | None = None,
    ) -> None:
        self.count, self.batch, self.seed = count, batch, seed
        self.chances = chances
        self.rank, self.world = rank, world
        self.epoch = 0
        self.group = _numbers(shapes or [None] * count)
        sizes = np.bincount(self.group)
        if chances is not None:  # the largest remainders, so that they sum to ``count``
            wanted = np.bincount(self.group, chances) * count
            sizes = np.floor(wanted).astype(np.int64)
            sizes[np.argsort(sizes - wanted)[: count - sizes.sum()]] += 1
        self.sizes = sizes  # images of each group in an epoch

    def __len__(self) -> int:
        return int((-(-self.sizes // self.batch)).sum())

    def __iter__(self) -> Iterator[list[Key]]:
        epoch = self.epoch
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(self.count)
        batches: list[np.ndarray] = []
        for number, size in enumerate(self.sizes):
            rows = order[self.group[order] == number]
            if self.chances is not None and size:
                chances = self.chances[rows]
                rows = rng.choice(rows, size, p=chances / chances.sum())
            rows = np.concatenate([rows[:size], np.resize(rows, -size % self.world)])
            batches += [rows[i : i + self.batch] for i in range(0, size, self.batch)]
        turns = rng.permutation(len(batches)) if len(self.sizes) > 1 else range(len(batches))
        for turn in turns:
            yield [(epoch, index) for index in batches[turn][self.rank :: self.world].tolist()]


class OrderedBatches(Sampler[list[Key]]):
    """Indices rank, rank + world, ...: each image once over all ranks, in order but for the shapes:
    a batch is of one."""

    def __init__(
        self, count: int, batch: int, rank: int, world: int, shapes: Sequence[Any] | None = None
    ) -> None:
        group = _numbers(shapes or [None] * count)
        self.epoch = 0
        self.batches: list[list[int]] = []
        mine = np.arange(rank, count, world)
        for number in range(group.max(initial=-1) + 1):
            rows = mine[group[mine] == number].tolist()
            self.batches += [rows[i : i + batch] for i in range(0, len(rows), batch)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in self.batches:
            yield [(0, index) for index in batch]


def _numbers(shapes: Sequence[Any]) -> np.ndarray:
    """int64 [N]: equal shapes have equal numbers, from 0 in the order of their first."""
    known = {shape: number for number, shape in enumerate(dict.fromkeys(shapes))}
    return np.array([known[shape] for shape in shapes], np.int64)


_loaders: weakref.WeakSet[BatchLoader] = weakref.WeakSet()


@atexit.register
def _end_workers() -> None:
    """Tell the workers of loaders that are still there to end (torch below 2.14 does not, and
    multiprocessing's exit sends one SIGTERM, which they ignore, and waits for ever)."""
    for loader in list(_loaders):
        loader.end_workers()


class BatchLoader(DataLoader):
    """A DataLoader of Batches.

    ``set_epoch(epoch)`` before each epoch (safe with persistent workers).
    """

    def __init__(
        self,
        samples: Samples,
        batches: Any,
        workers: int,
        combine: Callable[[Any], Any] = collate,
    ):
        self.batches = batches
        super().__init__(
            samples,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=combine,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # leaves the process's random state alone
        )
        _loaders.add(self)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentations of the next iteration."""
        self.batches.epoch = epoch

    def end_workers(self) -> None:
        """End the worker processes, where there are any; the next iteration starts new ones."""
        if self._iterator is not None:
            self._iterator._shutdown_workers()  # type: ignore[attr-defined]
            self._iterator = None

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            if isinstance(batch, _Failure):
                # Now: the exception keeps them in a cycle, and the collector would end the
                # queues first, without which torch waits 20 s and then terminates them.
                self.end_workers()
                raise UserError(f"{batch.message}; python -m src.data.check finds all such files")
            yield batch


def train_loader(
    records: Sequence[Any],
    transform: Transform | Phases,
    *,
    batch: int,
    workers: int,
    seed: int,
    rank: int = 0,
    world: int = 1,
    chances: np.ndarray | None = None,
    canvas: Canvas | None = None,
) -> BatchLoader:
    """Shuffled, augmented batches; ``batch`` counts the images of all processes together.

    chances: see GlobalBatches; canvas: see ``split_loaders``.

    Raises UserError when there are no records or ``batch`` does not divide by ``world``.
    """
    if not records:
        raise UserError("the training split has no images")
    if batch % world:
        raise UserError(f"--batch {batch} does not divide among {world} processes")
    shapes = None
    if canvas is not None:
        last = transform.then if isinstance(transform, Phases) else transform
        shapes = input_shapes(records, last, canvas)
    batches = GlobalBatches(len(records), batch, seed, rank, world, chances, shapes)
    samples = Samples(records, transform, seed)
    useful = useful_workers(workers, world)
    if useful < workers:
        log.info("--workers %d: %d used, for want of processor cores", workers, useful)
    return BatchLoader(samples, batches, useful)


def valid_loader(
    records: Sequence[Any],
    transform: Transform,
    *,
    batch: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
    canvas: Canvas | None = None,
) -> BatchLoader:
    """Batches of the records rank, rank + world, ... in order; ``batch`` images on each process.

    Ranks may differ in their batches: validate without collective calls in a step. canvas: see
    ``split_loaders``.
    """
    shapes = input_shapes(records, transform, canvas) if canvas else None
    batches = OrderedBatches(len(records), batch, rank, world, shapes)
    samples = Samples(records, transform, seed=0)
    return BatchLoader(samples, batches, useful_workers(workers, world))


def split_loaders(
    records: Mapping[str, Sequence[Any]],
    training: Transform | Phases,
    validation: Transform,
    *,
    batch: int,
    workers: int,
    seed: int,
    rank: int = 0,
    world: int = 1,
    chances: np.ndarray | None = None,
    canvas: Canvas | None = None,
) -> tuple[BatchLoader, BatchLoader]:
    """The loaders of records["train"] and records["valid"]; ``batch`` over all processes.

    chances: of the training images, see GlobalBatches; canvas: (height, width) of an image -> what
    the model pads it to: batches are then of images of one canvas.
    """
    return (
        train_loader(
            records["train"],
            training,
            batch=batch,
            workers=workers,
            seed=seed,
            rank=rank,
            world=world,
            chances=chances,
            canvas=canvas,
        ),
        valid_loader(
            records["valid"],
            validation,
            batch=max(1, batch // world),
            workers=workers,
            rank=rank,
            world=world,
            canvas=canvas,
        ),
    )


def useful_workers(workers: int, world: int = 1) -> int:
    """No more workers than processor cores (over the processes of this machine)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    most = max(1, (cores or 1) // max(1, here))
    return min(workers, most)


def _start_worker(_: int) -> None:
    # The main process says when they end. A signal to the whole group (timeout, Slurm, a
    # terminal) would end them first, and torch raises that in the middle of whatever runs there.
    # A second SIGTERM ends them: torch's and multiprocessing's last resort at exit.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: signal.signal(number, signal.SIG_DFL))
    cv2.setNumThreads(0)  # the workers are the parallelism
    gc.freeze()  # what was there before the fork is never looked through, so never copied
