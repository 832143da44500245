"""Validation on a model that FSDP shards: its processes gather weights together, or hang."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..backbones.batching import FeatureModel
from ..engine.distributed import any_rank, is_sharded

B = TypeVar("B")


def in_step(loader: Iterable[B], model: nn.Module, device: torch.device) -> Iterator[B]:
    """The loader's batches, each process's own share; where ``model`` is sharded its backbone runs
    equally often on all of them.

    Each pass is announced; whoever has no more batches looks at a blank image as long as another
    process has some, however many passes its images take (windows, a mirrored look).
    """
    inner: Any = next((one for one in model.modules() if isinstance(one, FeatureModel)), None)
    if inner is None or not is_sharded(inner):
        yield from loader
        return
    read = inner.read

    def announced(batch: Tensor) -> dict[str, Tensor]:
        any_rank(True, device)
        return read(batch)

    inner.read = announced
    try:
        yield from loader
    finally:
        inner.read = read
    blank = inner.backbone.blank(inner.divisor).to(device)
    while any_rank(False, device):
        read(blank)
    # FSDP fetches for a backward pass what ran before it: let that be the same everywhere.
    inner([blank[0]])
