"""Unlabelled images: where they come from, in what order, and the batches of crops."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from ..core.errors import UserError
from ..data.common.images import image_size_of, is_image, list_images, natural_key
from ..data.common.loaders import Batch, BatchLoader, Key, Samples, collate, useful_workers
from ..data.common.shards import is_shards
from .crops import CropTransform
from .masks import batch_masks

log = logging.getLogger(__name__)

_HEADERS = 500  # images whose size is looked at before training


def find_images(source: str) -> list[Path]:
    """The images of a folder with all below it, of a glob, of WebDataset shards, or of a text file
    with a path a line (relative to the file). Natural order. UserError when there is none, or one
    is not there."""
    path = Path(source).expanduser()
    if is_shards(source):
        return list_images(source)
    if path.is_dir():
        found = sorted((p for p in path.rglob("*") if is_image(p)), key=natural_key)
        if not found:
            raise UserError(f"no image in the folder {path} or below it")
        return found
    if path.is_file() and path.suffix.lower() == ".txt":
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        found = [path.parent / Path(line).expanduser() for line in lines if line]
        missing = [p for p in found if not p.is_file()]
        if missing or not found:
            what = f"{len(missing)} are not there, e.g. {missing[0]}" if missing else "it is empty"
            raise UserError(f"{path} lists the images to train on, a path a line, and {what}")
        return found
    return list_images(source)


def say_small(paths: Sequence[Path], side: int) -> None:
    """One line when images (of 500 looked at) are smaller than the crops: they are enlarged."""
    looked = paths[:: max(1, -(-len(paths) // _HEADERS))]
    small = [path for path in looked if min(image_size_of(path)) < side]
    if small:
        log.warning(
            "%d of %d images looked at are smaller than a global crop (%d pixels), e.g. %s: their "
            "crops are enlarged; --global-size %d would fit more of them",
            *(len(small), len(looked), side, small[0]),
            max(32, int(np.median([min(image_size_of(p)) for p in small])) // 32 * 32),
        )


@dataclass
class CropBatch:
    """Crops of B images on one process.

    global_crops: uint8 [2, B, 3, G, G] (distillation: [1, ...]); local_crops: uint8
    [L, B, 3, S, S] or None; masks: bool [2 B, patches] (crop-major), or None without iBOT;
    gram_crops: uint8 [2, B, 3, G', G'] or None; indices: positions in the list of images.
    """

    global_crops: Tensor
    local_crops: Tensor | None
    masks: Tensor | None
    gram_crops: Tensor | None
    indices: list[int]

    @property
    def images(self) -> Tensor:
        """One crop of each image."""
        return self.global_crops[0]

    def _map(self, move: Callable[[Tensor], Tensor]) -> CropBatch:
        fields = vars(self).items()
        moved: dict[str, Any] = {n: move(v) for n, v in fields if isinstance(v, Tensor)}
        return replace(self, **moved)

    def to(self, device: torch.device | str) -> CropBatch:
        """The batch on a device; from pinned memory the copies do not wait."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> CropBatch:
        """The batch in page-locked memory."""
        return self._map(lambda tensor: tensor.pin_memory())


def combine_crops(grid: tuple[int, int] | None, samples: list[Any]) -> Any:
    """Samples of CropTransform -> CropBatch; masks of ``grid`` are drawn from the first sample's
    seed, so that they are the same whatever the workers. A failure is handed on."""
    batch = collate(samples)
    if not isinstance(batch, Batch):
        return batch
    targets = batch.targets

    def crops(name: str) -> Tensor | None:  # [B, n, h, w, 3] -> [n, B, 3, h, w]
        if name not in targets[0]:
            return None
        return torch.stack([t[name] for t in targets]).permute(1, 0, 4, 2, 3).contiguous()

    global_crops = crops("global")
    assert global_crops is not None
    masks = None
    if grid is not None:
        rng = np.random.default_rng((int(targets[0]["seed"]), 1))
        masks = torch.from_numpy(batch_masks(len(global_crops) * len(targets), grid, rng))
    return CropBatch(
        global_crops,
        crops("local"),
        masks,
        crops("gram"),
        batch.indices,
    )


class EndlessBatches(Sampler[list[Key]]):
    """One rank's share of global batches cut from an endless row of permutations.

    Permutation r is seeded from (seed, r), and its images are augmented by (seed, r, index); what
    is less than a batch at its end is left out (another rest each time). An epoch is ``steps``
    batches, wherever permutations end. Rank and step tell what a batch holds: nothing else needs to
    be kept for a resumption.
    """

    def __init__(
        self, count: int, batch: int, steps: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        self.count, self.batch, self.steps, self.seed = count, batch, steps, seed
        self.rank, self.world = rank, world
        self.epoch = 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Key]]:
        drawn, order = -1, np.empty(0, np.int64)
        for step in range(self.epoch * self.steps, (self.epoch + 1) * self.steps):
            turn, place = divmod(step, self.count // self.batch)
            if turn != drawn:
                order = np.random.default_rng((self.seed, turn)).permutation(self.count)
                drawn = turn
            share = order[place * self.batch : (place + 1) * self.batch][self.rank :: self.world]
            yield [(turn, index) for index in share.tolist()]


def crop_loader(
    paths: Sequence[Path],
    transform: CropTransform,
    *,
    batch: int,
    steps: int,
    workers: int,
    seed: int,
    grid: tuple[int, int] | None,
    rank: int = 0,
    world: int = 1,
) -> BatchLoader:
    """Batches of crops; ``batch`` counts the images of all processes, ``steps`` the batches an
    epoch. UserError for fewer images than a batch, or one that does not divide."""
    if len(paths) < batch:
        raise UserError(
            f"{len(paths)} images and --batch {batch}: a batch would hold an image twice, which "
            "the losses take for two; give more images or a smaller --batch"
        )
    if batch % world:
        raise UserError(f"--batch {batch} does not divide among {world} processes")
    samples = Samples(paths, transform, seed)
    batches = EndlessBatches(len(paths), batch, steps, seed, rank, world)
    return BatchLoader(
        samples, batches, useful_workers(workers, world), combine=partial(combine_crops, grid)
    )
