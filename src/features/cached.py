"""Loaders whose images go through a frozen backbone once; later epochs read its features.

For every task: it hands over what its model reads of images (``extract``), and gets batches whose
``image_list()`` gives those features instead of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..backbones.batching import ImageFeatures
from ..core.errors import UserError
from ..core.structures import Geometry, Size
from ..data.common.loaders import Batch, BatchLoader, Key, Samples, Transform, collate
from .cache import Entry, FeatureCache, content_digests, row_keys

Arrays = dict[str, np.ndarray]
_GEOMETRY, _TARGET = "geometry", "target."


@dataclass
class FeatureBatch:
    """A batch of features in place of images; else as ``data.loaders.Batch``."""

    images: list[ImageFeatures]
    targets: list[Any]
    indices: list[int]
    geometries: list[Geometry]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(h, w) of each image."""
        return [image.size for image in self.images]

    def image_list(self) -> list[ImageFeatures]:
        """What the model takes instead of images."""
        return self.images

    def to(self, device: torch.device | str) -> FeatureBatch:
        """The batch on a device."""
        targets = [{name: value.to(device) for name, value in t.items()} for t in self.targets]
        return replace(self, images=[image.to(device) for image in self.images], targets=targets)


@dataclass(frozen=True)
class KeptTargets:
    """Targets that depend on the view, so that they are kept beside the features.

    entries: the largest shapes; content: record -> the files, and words on whatever else, that its
    target is made of.
    """

    entries: dict[str, Entry]
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
        digests = content_digests(samples.records, caching.content)
        augmented = f"{_plain(samples.transform)} {samples.seed}"
        words = ["plain"] + [f"{augmented} {view}" for view in range(1, caching.views)]
        settings = {**caching.settings, "transform": _plain(caching.plain)}
        keys = row_keys(digests, words)
        self.cache = FeatureCache(caching.folder, settings, self._entries(), keys)

    def _entries(self) -> dict[str, Entry]:
        """The arrays of a row; features are measured on a grey image of the largest size."""
        width, height = self.caching.size
        geometry = Geometry(self.caching.size, self.caching.size)
        grey = torch.full((1, 3, height, width), 127, dtype=torch.uint8)
        probe = self._extract(Batch(grey, [(height, width)], [{}], [0], [geometry]))[0]
        entries = {_GEOMETRY: Entry((4,), "int32")}
        for name, value in probe.values.items():
            entries[name] = Entry(tuple(value.shape), self.caching.store)
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
        for keys, absent in zip(plan, missing):
            if absent:
                self._store(next(fresh), absent)
            yield self._batch(keys)

    def _row(self, key: Key) -> int:
        return key[0] * self.count + key[1]

    def _has(self, key: Key) -> bool:
        return self.cache.has(self._row(key))

    def _extract(self, batch: Batch) -> list[ImageFeatures]:
        with torch.no_grad():
            return self.caching.extract(batch)

    def _store(self, batch: Batch, keys: Sequence[Key]) -> None:
        """Through the backbone, and into the cache."""
        features = self._extract(batch)
        for key, found, target, geometry in zip(keys, features, batch.targets, batch.geometries):
            arrays = {name: value.float().cpu().numpy() for name, value in found.values.items()}
            arrays[_GEOMETRY] = np.array([*geometry.original, *geometry.resized], np.int32)
            if isinstance(self.caching.targets, KeptTargets):
                arrays |= {_TARGET + name: value.numpy() for name, value in target.items()}
            self.cache.write(self._row(key), arrays)

    def _read(self, key: Key) -> Arrays:
        arrays = self.cache.read(self._row(key))
        if arrays is None:  # damaged, as the checksum says
            batch = collate([self.samples[key]])
            if not isinstance(batch, Batch):
                raise UserError(batch.message)
            self._store(batch, [key])
            arrays = self.cache.read(self._row(key))
            assert arrays is not None
        return arrays

    def _batch(self, keys: Sequence[Key]) -> FeatureBatch:
        images, targets, geometries = [], [], []
        for key in keys:
            arrays = self._read(key)
            numbers = arrays.pop(_GEOMETRY).tolist()
            geometries.append(Geometry(Size(*numbers[:2]), Size(*numbers[2:])))
            if isinstance(self.caching.targets, KeptTargets):
                names = [_TARGET + name for name in self.caching.targets.entries]
                target = {name.removeprefix(_TARGET): arrays.pop(name) for name in names}
            else:
                target = self.caching.targets(self.samples.records[key[1]])
            targets.append({name: torch.from_numpy(value) for name, value in target.items()})
            values = {name: torch.from_numpy(value).float() for name, value in arrays.items()}
            images.append(ImageFeatures(values, (numbers[3], numbers[2])))
        return FeatureBatch(images, targets, [index for _, index in keys], geometries)


def _plain(transform: Any) -> dict[str, Any]:
    """A transform's plain attributes (numbers, words, sizes), and its name."""
    kinds = (bool, int, float, str, tuple, type(None))
    values = {n: v for n, v in sorted(vars(transform).items()) if isinstance(v, kinds)}
    return {"name": type(transform).__name__, **values}
