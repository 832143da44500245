"""More than one look at an image: sliding windows, mirrored, at several sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.dense import upsample
from ..core.structures import ResizeMode, Size
from ..data.common.images import fitted_size
from .settings import SegmentationInference


def looking(
    model: nn.Module,
    options: SegmentationInference,
    image_size: Size,
    resize: ResizeMode,
    batch: int = 4,
) -> tuple[nn.Module, ResizeMode | None]:
    """The model as the options have it look at images, and how these are to be resized for it
    beforehand (None: not at all, it takes the original pictures)."""
    if not options.looks():
        return model, resize
    original = options.slide or options.scales != [1.0]
    base = partial(fitted_size, size=image_size, mode=resize)
    averaged = Averaged(
        model,
        image_size if options.slide else None,
        options.overlap,
        options.flip,
        options.scales,
        batch,
        base if original and (not options.slide or resize == "short") else None,
    )
    return averaged, None if original else resize


class Averaged(nn.Module):
    """A segmenter whose answers are mean probabilities over several looks.

    ``forward(images)``: list of [3, H, W] -> float32 [C, h, w] each, in [0, 1], at the size of
    scale 1. window: slide windows of this size over the image (None: the whole at once), each
    overlapping the next by ``overlap`` of its side; flip: also mirrored; base: the size of scale 1
    of an image (None: its own); scales: sizes relative to that, each made of the image itself;
    batch: windows the model takes at once.
    """

    def __init__(
        self,
        model: nn.Module,
        window: Size | None = None,
        overlap: float = 1 / 3,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        batch: int = 4,
        base: Callable[[Size], Size] | None = None,
    ) -> None:
        super().__init__()
        assert 0 <= overlap < 1 and scales
        self.model = model
        self.window, self.overlap = window, overlap
        self.flip, self.scales, self.batch = flip, list(scales), batch
        self.base = base

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        sizes = [Size(image.shape[2], image.shape[1]) for image in images]
        if self.base is not None:
            sizes = [self.base(size) for size in sizes]
        total: list[Tensor] = []
        looks = 0
        for view, mirrored in self._views(images, sizes):
            found = [
                upsample((one.flip(-1) if mirrored else one)[None], (size.height, size.width))[0]
                for one, size in zip(self._look(view), sizes)
            ]
            total = [a + b for a, b in zip(total, found)] if total else found
            looks += 1
        return [one / looks for one in total]

    def _views(
        self, images: Sequence[Tensor], sizes: Sequence[Size]
    ) -> Iterator[tuple[list[Tensor], bool]]:
        for scale in self.scales:
            scaled = [
                resized(image, Size(*(max(1, round(side * scale)) for side in size)))
                for image, size in zip(images, sizes)
            ]
            yield scaled, False
            if self.flip:
                yield [image.flip(-1) for image in scaled], True

    def _look(self, images: list[Tensor]) -> list[Tensor]:
        """Probabilities [C, h, w] of each image, in its pixels."""
        if self.window is None:
            return [logits.softmax(dim=0) for logits in self.model(images)]
        return [self._slide(image, self.window) for image in images]

    def _slide(self, image: Tensor, window: Size) -> Tensor:
        height, width = image.shape[-2:]
        tops = starts(height, window.height, self.overlap)
        lefts = starts(width, window.width, self.overlap)
        places = [
            (slice(top, top + window.height), slice(left, left + window.width))
            for top in tops
            for left in lefts
        ]
        total: Tensor | None = None
        counts = torch.zeros(height, width, device=image.device)
        for first in range(0, len(places), self.batch):
            part = places[first : first + self.batch]
            answers = self.model([image[:, rows, columns] for rows, columns in part])
            for (rows, columns), logits in zip(part, answers):
                if total is None:
                    total = logits.new_zeros((len(logits), height, width))
                total[:, rows, columns] += logits.softmax(dim=0)
                counts[rows, columns] += 1
        assert total is not None
        return total / counts


def starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows begin so that they cover ``length`` and overlap by at least ``overlap``; with 0
    as few as can be, evenly spread, as EoMT's evaluation has them."""
    if length <= window:
        return [0]
    if overlap == 0:
        count = -(-length // window)
        return [index * (length - window) // (count - 1) for index in range(count)]
    step = max(1, round(window * (1 - overlap)))
    return [*range(0, length - window, step), length - window]


def resized(image: Tensor, size: Size) -> Tensor:
    """[C, H, W] at this size; uint8 stays uint8 where nothing changes."""
    if (image.shape[2], image.shape[1]) == tuple(size):
        return image
    values = image.float() / 255 if image.dtype == torch.uint8 else image
    shape = size.height, size.width
    return F.interpolate(values[None], shape, mode="bilinear", antialias=True)[0]
