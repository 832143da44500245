"""Loaders whose images go through a frozen backbone once; later epochs read its features.

For every task: it hands over what its model reads of a batch (``extract``), and gets batches whose
``image_list()`` gives those features instead of images.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from src.core.errors import UserError
from src.core.paths import output_folder
from src.core.structures import Geometry, Size
from src.data.loaders import Batch, BatchLoader, Key, Samples, Transform, collate
from src.engine.distributed import choose_device, choose_precision, is_main
from src.features.cache import Entry, FeatureCache, content_digests, row_keys
from src.features.model import fingerprint

log = logging.getLogger(__name__)

Features = dict[str, Tensor]
Extract = Callable[[Batch], list[Features]]  # of a batch on the model's device, by image
_GEOMETRY, _TARGET = "geometry", "target."


@dataclass
class FeatureBatch:
    """A batch of features in place of images; else as ``data.loaders.Batch``.

    features: those of each image by name; sizes: (h, w) of the images they come from.
    """

    features: list[Features]
    sizes: list[tuple[int, int]]
    targets: list[Any]
    indices: list[int]
    geometries: list[Geometry]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def images(self) -> list[Features]:
        """As many as there are images."""
        return self.features

    def image_list(self) -> list[Features]:
        """What the model takes instead of images."""
        return self.features

    def to(self, device: torch.device | str) -> FeatureBatch:
        """The batch on a device."""

        def moved(items: list[Any]) -> list[Any]:
            return [{name: value.to(device) for name, value in item.items()} for item in items]

        return replace(self, features=moved(self.features), targets=moved(self.targets))


class _Views(Samples):
    """Samples whose view 0 is ``plain`` and whose further views are augmented."""

    def __init__(self, samples: Samples, plain: Transform) -> None:
        super().__init__(samples.records, samples.transform, samples.seed)
        self._plain = Samples(samples.records, plain, samples.seed)

    def __getitem__(self, key: Key) -> Any:
        return self._plain[key] if key[0] == 0 else super().__getitem__(key)


@dataclass
class Caching:
    """How a task's features are kept.

    extract: batch -> features of each image; plain: the transform of view 0; content: a record's
    files, and whatever else its row depends on, as strings; settings: what all rows depend on;
    size: the model's input. targets: record -> its target, where that does not depend on the view
    (else targets are kept with the features).
    """

    extract: Extract
    plain: Transform
    content: Callable[[Any], Sequence[Path | str]]
    settings: dict[str, Any]
    size: Size
    folder: Path
    store: str = "float32"
    views: int = 1
    targets: Callable[[Any], dict[str, np.ndarray]] | None = None


class CachedLoader:
    """A ``BatchLoader`` in the same order, of features: rows that the cache lacks are computed
    when they come up (with ``loader``'s workers), all others are read.

    Epoch e shows view e modulo ``views``. It is the engine's ``Loader``.
    """

    def __init__(self, loader: BatchLoader, caching: Caching, views: int) -> None:
        samples = loader.dataset
        assert isinstance(samples, Samples)
        self.loader, self.caching, self.views = loader, caching, views
        self.samples = _Views(samples, caching.plain)
        self.count = len(samples)
        digests = content_digests(samples.records, caching.content)
        augmented = f"{_plain(samples.transform)} {samples.seed}"
        words = ["plain"] + [f"{augmented} {view}" for view in range(1, views)]
        keys = row_keys(digests, words)
        settings = {**caching.settings, "transform": _plain(caching.plain)}
        self.cache = FeatureCache(caching.folder, settings, self._entries(caching), keys)

    def _entries(self, caching: Caching) -> dict[str, Entry]:
        """The arrays of a row, measured on a grey image of the largest size and the targets."""
        width, height = caching.size
        geometry = Geometry(caching.size, caching.size)
        grey = torch.full((1, 3, height, width), 127, dtype=torch.uint8)
        probe = Batch(grey, [(height, width)], [{}], [0], [geometry])
        entries = {_GEOMETRY: Entry((4,), "int32")}
        for name, value in self._extract(probe)[0].items():
            entries[name] = Entry(tuple(value.shape), caching.store)
        if caching.targets is None:
            entries |= self._target_entries()
        return entries

    def _target_entries(self) -> dict[str, Entry]:
        """Of targets: the largest shapes over the plain views of all records."""
        shapes: dict[str, tuple[int, ...]] = {}
        kinds: dict[str, str] = {}
        for index in range(self.count):
            sample = self.samples[(0, index)]
            if not hasattr(sample, "loaded"):
                raise UserError(sample.message)
            for name, value in sample.loaded.target.items():
                before = shapes.get(name, value.shape)
                shapes[name] = tuple(max(pair) for pair in zip(before, value.shape))
                kinds[name] = value.dtype.name
        return {_TARGET + name: Entry(shape, kinds[name]) for name, shape in shapes.items()}

    def say(self, what: str) -> None:
        """Log how large the cache is and how much of it is there."""
        if is_main():
            log.info(
                "feature cache of %s: %d rows, %.1f MiB, %d there already, in %s",
                what,
                len(self.cache),
                self.cache.total_bytes / 2**20,
                self.cache.count,
                self.cache.folder,
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the order, and the view, of the next iteration."""
        self.loader.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[FeatureBatch]:
        self.cache.refresh()
        plan = [[(key[0] % self.views, key[1]) for key in keys] for keys in self.loader.batches]
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

    def _extract(self, batch: Batch) -> list[Features]:
        with torch.no_grad():
            return self.caching.extract(batch)

    def _store(self, batch: Batch, keys: Sequence[Key]) -> None:
        """Through the backbone, and into the cache."""
        features = self._extract(batch)
        for key, found, target, geometry in zip(keys, features, batch.targets, batch.geometries):
            arrays = {name: value.float().cpu().numpy() for name, value in found.items()}
            arrays[_GEOMETRY] = np.array([*geometry.original, *geometry.resized], np.int32)
            if self.caching.targets is None:
                arrays |= {_TARGET + name: value.numpy() for name, value in target.items()}
            self.cache.write(self._row(key), arrays)

    def _read(self, key: Key) -> dict[str, np.ndarray]:
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
        features, targets, sizes, geometries = [], [], [], []
        for key in keys:
            arrays = self._read(key)
            numbers = arrays.pop(_GEOMETRY).tolist()
            geometries.append(Geometry(Size(*numbers[:2]), Size(*numbers[2:])))
            sizes.append((numbers[3], numbers[2]))
            target = {
                name.removeprefix(_TARGET): value
                for name, value in arrays.items()
                if name.startswith(_TARGET)
            }
            if self.caching.targets is not None:
                target = self.caching.targets(self.samples.records[key[1]])
            targets.append({name: torch.from_numpy(value) for name, value in target.items()})
            features.append(
                {
                    name: torch.from_numpy(value).float()
                    for name, value in arrays.items()
                    if not name.startswith(_TARGET)
                }
            )
        return FeatureBatch(features, sizes, targets, [index for _, index in keys], geometries)


def _plain(transform: Any) -> dict[str, Any]:
    """A transform's plain attributes (numbers, words, sizes), and its name."""
    kinds = (bool, int, float, str, tuple, type(None))
    values = {n: v for n, v in sorted(vars(transform).items()) if isinstance(v, kinds)}
    return {"name": type(transform).__name__, **values}


def cache_loaders(
    training: BatchLoader,
    validation: BatchLoader,
    *,
    model: nn.Module,
    features: Callable[[Any], list[Features]],
    options: Any,
    reads: str,
    plain: Transform,
    content: Callable[[Any], Sequence[Path | str]],
    targets: Callable[[Any], dict[str, np.ndarray]] | None = None,
) -> tuple[CachedLoader, CachedLoader]:
    """Both loaders of a task, as ``--cache-features`` wants them; the sizes are logged.

    model: has a frozen ``backbone``; features: a list of images -> what the head reads of each;
    reads: a word on that (a part of the cache's name); options: TrainingOptions, BackboneOptions,
    CacheOptions with imgsz and resize; others as ``Caching``. Raises UserError when the features
    are not the same in every epoch.
    """
    if options.fine_tune:
        raise UserError(
            "--cache-features needs a frozen backbone, and --fine-tune trains it: its features "
            "change with every step; leave one of them out"
        )
    if options.strategy == "fsdp":
        raise UserError("--cache-features does not go with --strategy fsdp; use ddp")
    backbone: Any = model.backbone
    device = torch.device(choose_device(options.device))
    precision = choose_precision(options.precision, device.type)
    kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}

    def extract(batch: Batch) -> list[Features]:
        low = kinds.get(precision)
        backbone.eval().to(device)
        with torch.autocast(device.type, dtype=low) if low else nullcontext():
            return features(batch.to(device).image_list())

    caching = Caching(
        extract=extract,
        plain=plain,
        content=content,
        settings={
            "backbone": backbone.name,
            "weights": fingerprint(backbone.hub_model),
            "reads": reads,
            "imgsz": list(options.imgsz),
            "resize": options.resize,
            "precision": precision,
        },
        size=Size(*options.imgsz),
        folder=output_folder(options.cache_dir),
        store=options.cache_dtype,
        views=options.cache_views,
        targets=targets,
    )
    cached = CachedLoader(training, caching, options.cache_views)
    valid = CachedLoader(validation, replace(caching, plain=_transform(validation)), 1)
    cached.say("training" + (f" ({options.cache_views} views)" if options.cache_views > 1 else ""))
    valid.say("validation")
    if options.cache_views == 1 and options.augment != "none" and is_main():
        log.info("one view is kept of each image: without augmentation (--cache-views N for more)")
    return cached, valid


def _transform(loader: BatchLoader) -> Transform:
    samples = loader.dataset
    assert isinstance(samples, Samples)
    return samples.transform
