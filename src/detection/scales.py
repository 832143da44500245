"""Multi-scale training: batches at other sizes than ``--imgsz`` (YOLOv2,
https://arxiv.org/abs/1612.08242, section 2), each batch of one, so that it stays one pass."""

from __future__ import annotations

import random
from dataclasses import replace

from torch import Tensor, nn
from torch.nn import functional as F

from ..data.common.loaders import Batch
from ..engine.host import upload
from ..engine.job import model_loss


class MultiScaleLoss:
    """``Job.loss`` on batches of which a third each is 1 - ``spread``, 1, and 1 + ``spread`` times
    as large: three shapes for each of the loader's, which is what CUDA is quick with.

    divisor: what sides of the model's input are multiples of. The choice comes from Python's
    generator, which the engine seeds for each batch, on all processes alike.
    """

    def __init__(self, spread: float, divisor: int) -> None:
        self.factors, self.divisor = (1 - spread, 1.0, 1 + spread), divisor

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        factor = random.choice(self.factors)  # noqa: S311
        return model_loss(model, rescaled(batch, factor, self.divisor) if factor != 1 else batch)


def rescaled(batch: Batch, factor: float, divisor: int) -> Batch:
    """The batch about ``factor`` times as large, images as float in 0..1: its sides become the
    nearest multiples of the divisor, boxes (in pixels) follow exactly."""
    old = batch.images.shape[-2:]
    height, width = (max(divisor, round(side * factor / divisor) * divisor) for side in old)
    y, x = height / old[0], width / old[1]
    images = F.interpolate(
        batch.images.float() / 255, (height, width), mode="bilinear", antialias=True
    )
    sizes = [(min(height, round(h * y)), min(width, round(w * x))) for h, w in batch.sizes]
    sides = upload([x, y, x, y], images)
    targets = [{**t, "boxes": t["boxes"] * sides} for t in batch.targets]
    return replace(batch, images=images, sizes=sizes, targets=targets, packed=None)
