"""More than one look at an image: sliding windows, mirrored, at several sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.dense import upsample
from ..core.structures import Size


class Averaged(nn.Module):
    """A segmenter whose answers are mean probabilities over several looks.

    ``forward(images)``: list of [3, H, W] -> float32 [C, H, W] each, in [0, 1]. window: slide
    windows of this size over the image (None: the whole at once), each overlapping the next by
    ``overlap`` of its side; flip: also mirrored; scales: sizes relative to the image's own;
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
    ) -> None:
        super().__init__()
        assert 0 <= overlap < 1 and scales
        self.model = model
        self.window, self.overlap = window, overlap
        self.flip, self.scales, self.batch = flip, list(scales), batch

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        total: list[Tensor] = []
        looks = 0
        for view, mirrored in self._views(images):
            found = [
                upsample((one.flip(-1) if mirrored else one)[None], image.shape[-2:])[0]
                for one, image in zip(self._look(view), images)
            ]
            total = [a + b for a, b in zip(total, found)] if total else found
            looks += 1
        return [one / looks for one in total]

    def _views(self, images: Sequence[Tensor]) -> Iterator[tuple[list[Tensor], bool]]:
        for scale in self.scales:
            scaled = [resized(image, scale) for image in images]
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
    """Where windows begin so that they cover ``length`` and overlap by at least ``overlap``."""
    if length <= window:
        return [0]
    step = max(1, round(window * (1 - overlap)))
    return [*range(0, length - window, step), length - window]


def resized(image: Tensor, scale: float) -> Tensor:
    """[3, H, W] at ``scale`` times its size; uint8 stays uint8 where nothing changes."""
    if scale == 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[-2:])
    values = image.float() / 255 if image.dtype == torch.uint8 else image
    return F.interpolate(
        values[None], size=(height, width), mode="bilinear", antialias=True, align_corners=False
    )[0].clamp(0, 1)
