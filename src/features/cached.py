"""Loaders whose images go through a frozen backbone once; later epochs read its features.

For every task: it hands over what its model reads of images (``extract``), and gets batches whose
``image_list()`` gives those features instead of images.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..backbones.batching import ImageFeatures
from ..core.errors import UserError
from ..core.files import require_writable
from ..core.structures import Geometry, Size
from ..data.common.loaders import (
    Batch,
    BatchLoader,
    Key,
    Packed,
    Phases,
    Samples,
    Transform,
    collate,
)
from .cache import ArraySpec, FeatureCache, RowPart
from .digests import Contents, row_keys

Arrays = dict[str, np.ndarray]
_GEOMETRY, _TARGET = "geometry", "target."
_READERS = 4  # threads that read rows, and batches that they are ahead


@dataclass
class FeatureBatch:
    """A batch of features in place of images; else as ``data.common.loaders.Batch``.

    rows: uint8 [B, bytes] as they lie on the disk, so that a batch moves in one copy; parts: where
    the arrays of each row are; own: targets that are not kept in the rows.
    """

    rows: Tensor
    parts: list[dict[str, RowPart]]
    own: Packed | None
    indices: list[int]
    geometries: list[Geometry]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def images(self) -> list[ImageFeatures]:
        """The features of each image: views of ``rows``."""
        return [
            ImageFeatures(
                {name: value for name, value in self._views(row) if not name.startswith(_TARGET)},
                (geometry.resized.height, geometry.resized.width),
            )
            for row, geometry in enumerate(self.geometries)
        ]

    @property
    def targets(self) -> list[dict[str, Tensor]]:
        """The tensors of each image by name: views."""
        if self.own is not None:
            return self.own.each(len(self))
        return [
            {n.removeprefix(_TARGET): v for n, v in self._views(row) if n.startswith(_TARGET)}
            for row in range(len(self))
        ]

    def _views(self, row: int) -> Iterator[tuple[str, Tensor]]:
        for name, part in self.parts[row].items():
            kind = getattr(torch, part.dtype)
            yield name, self.rows[row, part.start : part.stop].view(kind).view(part.shape)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(h, w) of each image."""
        return [image.size for image in self.images]

    def image_list(self) -> list[ImageFeatures]:
        """What the model takes instead of images: float32, whatever they are kept in."""
        return [
            replace(one, values={name: value.float() for name, value in one.values.items()})
            for one in self.images
        ]

    def pin_memory(self) -> FeatureBatch:
        """The batch in page-locked memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device | str) -> FeatureBatch:
        """The batch on a device; from pinned memory the copies do not wait."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def _map(self, move: Callable[[Tensor], Tensor]) -> FeatureBatch:
        return replace(self, rows=move(self.rows), own=self.own.map(move) if self.own else None)


@dataclass(frozen=True)
class KeptTargets:
    """Targets that depend on the view, so that they are kept beside the features.

    entries: the largest shapes; content: record -> the files, and words on whatever else, that its
    target is made of.
    """

    entries: dict[str, ArraySpec]
    content: Callable[[Any], Sequence[Path | str]]


@dataclass
class Caching:
    """How features are kept.

    extract: a batch -> features of each image; settings: what all rows depend on; size: of the
    largest image; plain: the transform of view 0; targets: either ``KeptTargets``, or record ->
    its target, which then does not depend on the view.
    """

    extract: Callable[[Batch], list[ImageFeatures]]
    settings: dict[str, Any]
    size: Size
    folder: Path
    plain: Transform
    targets: KeptTargets | Callable[[Any], Arrays]
    store: str = "float32"
    views: int = 1

    def content(self, record: Any) -> list[Path | str]:
        """All that a record's rows are made of."""
        kept = isinstance(self.targets, KeptTargets)
        return [record.image, *(self.targets.content(record) if kept else [])]  # type: ignore


class _Views(Samples):
    """Samples whose view 0 is ``plain`` and whose further views are augmented."""

    def __init__(self, samples: Samples, plain: Transform) -> None:
        super().__init__(samples.records, samples.transform, samples.seed)
        self._plain = Samples(samples.records, plain, samples.seed)

    def __getitem__(self, key: Key) -> Any:
        return self._plain[key] if key[0] == 0 else super().__getitem__(key)


class CachedLoader:
    """A ``BatchLoader`` in the same order, of features: rows that the cache lacks are computed
    when they come up (with ``loader``'s workers), all others are read.

    Epoch e shows view e modulo ``caching.views``. It is the engine's ``Loader``.
    """

    def __init__(self, loader: BatchLoader, caching: Caching) -> None:
        samples = loader.dataset
        assert isinstance(samples, Samples)
        self.loader, self.caching = loader, caching
        self.samples = _Views(samples, caching.plain)
        self.count = len(samples)
        require_writable(caching.folder)
        self.contents = Contents(samples.records, caching.content, caching.folder / "files.bin")
        assert not isinstance(samples.transform, Phases), "kept features are of one transform"
        augmented = f"{samples.transform.cache_key()} {samples.seed}"
        words = ["plain"] + [f"{augmented} {view}" for view in range(1, caching.views)]
        settings = {**caching.settings, "transform": caching.plain.cache_key()}
        keys = row_keys(self.contents.digests, words)
        self.cache = FeatureCache(caching.folder, settings, self._entries(), keys)

    def _entries(self) -> dict[str, ArraySpec]:
        """The arrays of a row; features are measured on a grey image of the largest size."""
        width, height = self.caching.size
        geometry = Geometry(self.caching.size, self.caching.size)
        channels = getattr(self.caching.plain, "channels", 3)
        grey = torch.full((1, channels, height, width), 127, dtype=torch.uint8)
        probe = self._extract(Batch(grey, [(height, width)], [{}], [0], [geometry]))[0]
        entries = {_GEOMETRY: ArraySpec((4,), "int32")}
        for name, value in probe.values.items():
            entries[name] = ArraySpec(tuple(value.shape), self.caching.store)
        if isinstance(self.caching.targets, KeptTargets):
            entries |= {_TARGET + name: e for name, e in self.caching.targets.entries.items()}
        return entries

    def set_epoch(self, epoch: int) -> None:
        """Choose the order, and the view, of the next iteration."""
        self.loader.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[FeatureBatch]:
        self.cache.refresh()
        views = self.caching.views
        plan = [[(key[0] % views, key[1]) for key in keys] for keys in self.loader.batches]
        seen: set[Key] = set()
        missing: list[list[Key]] = []
        for keys in plan:
            absent = [k for k in dict.fromkeys(keys) if k not in seen and not self._has(k)]
            seen |= set(absent)
            missing.append(absent)
        lists = [absent for absent in missing if absent]
        fresh = iter(BatchLoader(self.samples, lists, self.loader.num_workers) if lists else ())
        # Rows are read while the model is at work on those before them.
        with ThreadPoolExecutor(_READERS, "rows") as pool:
            reading: deque[tuple[list[Key], Future[FeatureBatch | list[Key]]]] = deque()
            for keys, absent in zip(plan, missing):
                if absent:
                    self._store(next(fresh), absent)
                reading.append((keys, pool.submit(self._gather, keys)))
                if len(reading) > _READERS:
                    yield self._whole(*reading.popleft())
            while reading:
                yield self._whole(*reading.popleft())

    def _row(self, key: Key) -> int:
        return key[0] * self.count + key[1]

    def _has(self, key: Key) -> bool:
        return self.cache.has(self._row(key))

    def _extract(self, batch: Batch) -> list[ImageFeatures]:
        with torch.no_grad():
            return self.caching.extract(batch)

    def _store(self, batch: Batch, keys: Sequence[Key]) -> None:
        """Through the backbone, and into the cache."""
        for _, index in keys:
            if not self.contents.unchanged(index):
                raise UserError(
                    f"{self.samples.records[index].image}, or its truth, was changed while this "
                    "run was at work: start it again"
                )
        features = self._extract(batch)
        for key, found, target, geometry in zip(keys, features, batch.targets, batch.geometries):
            arrays = {name: value.float().cpu().numpy() for name, value in found.values.items()}
            arrays[_GEOMETRY] = np.array([*geometry.original, *geometry.resized], np.int32)
            if isinstance(self.caching.targets, KeptTargets):
                arrays |= {_TARGET + name: value.numpy() for name, value in target.items()}
            self.cache.write(self._row(key), arrays)

    def _whole(self, keys: list[Key], found: Future[FeatureBatch | list[Key]]) -> FeatureBatch:
        """What a thread has read; rows that it found damaged are made again."""
        batch = found.result()
        while not isinstance(batch, FeatureBatch):
            fresh = collate([self.samples[key] for key in batch])
            if not isinstance(fresh, Batch):
                raise UserError(fresh.message)
            self._store(fresh, batch)
            batch = self._gather(keys)
        return batch

    def _gather(self, keys: list[Key]) -> FeatureBatch | list[Key]:
        """The rows of a batch, or those of them that are damaged (as the checksum says)."""
        rows = torch.empty((len(keys), self.cache.row_bytes), dtype=torch.uint8)
        parts: list[dict[str, RowPart]] = []
        geometries = []
        damaged = []
        for key, raw in zip(keys, rows.numpy()):
            found = self.cache.read_into(self._row(key), raw.data)
            if found is None:
                damaged.append(key)
                continue
            place = found.pop(_GEOMETRY)
            numbers = raw[place.start : place.stop].view(place.dtype).tolist()
            geometries.append(Geometry(Size(*numbers[:2]), Size(*numbers[2:])))
            parts.append(found)
        if damaged:
            return damaged
        own = None
        if not isinstance(self.caching.targets, KeptTargets):
            targets = [self.caching.targets(self.samples.records[index]) for _, index in keys]
            own = Packed.of([{n: torch.from_numpy(v) for n, v in t.items()} for t in targets])
        batch = FeatureBatch(rows, parts, own, [index for _, index in keys], geometries)
        return batch.pin_memory() if torch.cuda.is_available() else batch
