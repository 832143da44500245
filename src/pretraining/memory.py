"""How much memory a training step will take, measured on a small one, before anything starts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .build import crop_sizes, patch_grid
from .masks import batch_masks

GIB = 2**30
LOW = 0.6  # of what autograd keeps in float32, where bf16 runs (0.55 for a ViT-S)
_SPARE = 1.15  # fragments of the allocator, temporary tensors


def kept_bytes(step: Any) -> int:
    """Bytes that autograd keeps for the backward pass of what ``step()`` computes, weights left
    out; each storage once."""
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = max(seen.get(storage.data_ptr(), 0), storage.nbytes())
        return tensor

    held = []  # else freed storages would come back under other tensors
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        held.append(step())
    return sum(seen.values())


def tiny_step(model: Any, options: Any, images: int) -> Any:
    """A function that computes the losses of so many blank images."""
    sizes, grid = crop_sizes(options), patch_grid(options)

    def crops(count: int, side: int) -> Tensor:
        return torch.zeros(count, images, 3, side, side, dtype=torch.uint8)

    masks = None
    if grid is not None:
        rng = np.random.default_rng(0)
        masks = torch.from_numpy(batch_masks(sizes.globals * images, grid, rng))

    def step() -> Any:
        gram = crops(sizes.globals, sizes.gram_size) if sizes.gram_size else None
        local = crops(sizes.locals, sizes.local_size) if sizes.locals else None
        was = model.training
        model.eval()  # leaves running statistics and centres alone
        terms = model(crops(sizes.globals, sizes.global_size), local, masks, gram)
        model.train(was)
        if hasattr(model, "watch"):
            model.watch.clear()
        return terms

    return step


def estimate(model: nn.Module, small_step: Any, images: int, batch: int, low: bool) -> float:
    """GiB of a step of ``batch`` images a process: weights, gradients, AdamW's two moments, and
    what autograd keeps, scaled up from ``small_step()`` of ``images`` images.

    low: whether heavy operations run in 16 bits.
    """
    weights = sum(p.numel() * 4 for p in model.parameters())
    trained = sum(p.numel() * 4 for p in model.parameters() if p.requires_grad)
    with torch.random.fork_rng(devices=[]):
        activations = kept_bytes(small_step) * batch / images
    activations *= LOW if low else 1.0
    return (weights + 3 * trained + activations) * _SPARE / GIB
