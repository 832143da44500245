"""The loaders of a training task, and what ``--cache-features`` makes of them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..backbones.batching import FeatureModel, ImageFeatures
from ..core.errors import UserError
from ..core.paths import output_folder
from ..core.structures import Size
from ..data.common.loaders import Batch, BatchLoader, Phases, Samples, Transform, split_loaders
from ..data.common.shapes import fix_shapes
from ..engine.checkpoint import fingerprint
from ..engine.distributed import is_main, rank, world
from ..engine.precision import arithmetic, choose_device, choose_type
from .cached import Arrays, CachedLoader, Caching, KeptTargets

log = logging.getLogger(__name__)


def task_loaders(
    options: Any,
    records: Mapping[str, Sequence[Any]],
    training: Transform | Phases,
    validation: Transform,
    model: FeatureModel,
    chances: np.ndarray | None = None,
) -> tuple[BatchLoader, BatchLoader]:
    """This process's share of training and validation, in batches that go through ``model`` in one
    pass; options: TrainingOptions, imgsz and resize; chances: as ``split_loaders``."""
    spread = getattr(options, "multi_scale", 0.0)
    device = choose_device(options.device)
    fix_shapes(model, Size(*options.imgsz), options.resize, device, spread)
    return split_loaders(
        records,
        training,
        validation,
        batch=options.batch,
        workers=options.workers,
        seed=options.seed,
        rank=rank(),
        world=world(),
        chances=chances,
        canvas=model.canvas,
    )


def cache_loaders(
    loaders: tuple[BatchLoader, BatchLoader],
    model: FeatureModel,
    options: Any,
    *,
    reads: str,
    plain: Transform,
    targets: Callable[[Any], Arrays],
    kept: KeptTargets | None = None,
) -> tuple[CachedLoader, CachedLoader]:
    """The loaders of training and validation, as --cache-features wants them.

    options: TrainingOptions, BackboneOptions and CacheOptions, with imgsz and resize; reads: a
    word on what the head reads (a part of the cache's name); plain: the training transform without
    augmentation; targets: record -> its target in validation, and in training unless there it
    depends on the view: then ``kept`` says how it is kept.

    The size is logged. Raises UserError when it is more than the disk has free, or the features
    are not the same in every epoch.
    """
    if options.tune != "frozen":
        raise UserError(
            f"--cache-features needs a frozen backbone, and --tune {options.tune} trains "
            f"{'adapters on it' if options.tune == 'lora' else 'it'}: its features change with "
            "every step; leave one of them out"
        )
    if options.resize == "short":
        raise UserError(
            "--cache-features keeps rows of one length, and images of --resize short have any: "
            "give another --resize, or leave it out"
        )
    if options.strategy == "fsdp":
        raise UserError("--cache-features does not go with --strategy fsdp; use ddp")
    device = choose_device(options.device)
    dtype = choose_type(options.precision, device, model.backbone.name)
    caching = Caching(
        extract=extractor(model, device, dtype),
        settings={
            "backbone": model.backbone.name,
            "weights": fingerprint(model.backbone),
            "statistics": str(model.backbone.statistics),
            "reads": reads,
            "imgsz": list(options.imgsz),
            "resize": options.resize,
            "canvases": [list(canvas) for canvas in model.canvases],
            "precision": str(dtype).removeprefix("torch."),
        },
        size=Size(*options.imgsz),
        folder=output_folder(options.cache_dir),
        plain=plain,
        targets=kept or targets,
        store=options.cache_dtype,
        views=options.cache_views,
    )
    training, validation = loaders
    samples = validation.dataset
    assert isinstance(samples, Samples) and not isinstance(samples.transform, Phases)
    still = replace(caching, plain=samples.transform, targets=targets, views=1)
    cached = CachedLoader(training, caching), CachedLoader(validation, still)
    if is_main():
        views = f" ({options.cache_views} views)" if options.cache_views > 1 else ""
        for loader, what in zip(cached, ("training" + views, "validation")):
            say(loader, what)
        if options.cache_views == 1 and options.augment != "none":
            log.info(
                "one view is kept of each image: without augmentation (--cache-views N for more)"
            )
        require_room(cached)
    return cached


def extractor(
    model: FeatureModel, device: torch.device, dtype: torch.dtype
) -> Callable[[Batch], list[ImageFeatures]]:
    """A batch -> the features of its images, in the arithmetic of training."""

    def extract(batch: Batch) -> list[ImageFeatures]:
        model.backbone.eval().to(device)
        with arithmetic(dtype, device):
            return model.features(batch.to(device).image_list())

    return extract


def say(loader: CachedLoader, what: str) -> None:
    """Log how large a cache is and how much of it is there."""
    cache = loader.cache
    log.info(
        "feature cache of %s: %d rows, %.1f MiB, %d there already, in %s",
        what,
        len(cache),
        cache.total_bytes / 2**20,
        cache.count,
        cache.folder,
    )


def require_room(loaders: tuple[CachedLoader, CachedLoader]) -> None:
    """UserError when the disk has not the room for what is still to be written."""
    folder = loaders[0].cache.folder
    needed = sum(loader.cache.missing_bytes for loader in loaders)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the feature cache needs {needed / 2**20:.0f} MiB more and {folder} has "
            f"{free / 2**20:.0f} MiB free; --cache-dtype float16 halves it, fewer --cache-views, a "
            "smaller --imgsz or --feature-extractor last take less, --cache-dir may be elsewhere"
        )
