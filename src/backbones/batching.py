"""Images of several sizes as one batch for a backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def join_images(
    images: Sequence[Tensor] | Tensor, normalise: Callable[[Tensor], Tensor], divisor: int
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Images [3, H, W] (uint8 or float in [0, 1]) -> normalised [B, 3, H', W'], (h, w) of each.

    H' and W' are multiples of ``divisor``; to the right and the bottom there are zeros (the mean
    colour). Equal sizes are stacked and normalised at once; nothing waits for the device.
    """
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    height = _up(max(h for h, _ in sizes), divisor)
    width = _up(max(w for _, w in sizes), divisor)
    if len(set(sizes)) == 1:
        batch = normalise(images if isinstance(images, Tensor) else torch.stack([*images]))
        h, w = sizes[0]
        if (h, w) != (height, width):
            batch = F.pad(batch, (0, width - w, 0, height - h))
        return batch, sizes
    first = normalise(images[0])
    batch = first.new_zeros((len(sizes), 3, height, width))
    for i, (image, (h, w)) in enumerate(zip(images, sizes)):
        batch[i, :, :h, :w] = first if i == 0 else normalise(image)
    return batch, sizes


def _up(value: int, divisor: int) -> int:
    return -(-value // divisor) * divisor
