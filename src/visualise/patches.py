"""Patch features of images: a backbone behind the predictor that every task uses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.base import Backbone
from ..backbones.build import build_backbone
from ..core.errors import UserError
from ..core.registry import did_you_mean
from ..core.structures import Geometry, Size
from ..predict.predictor import Predictor
from .settings import PatchOptions


def whole_patches(image: Tensor, divisor: int) -> Tensor:
    """uint8 [3, H, W] -> float 0..1 [3, H', W'], sides rounded to multiples of ``divisor``.

    Resized instead of padded: padding would show in the attention and in the components.
    """
    height, width = (max(1, round(side / divisor)) * divisor for side in image.shape[-2:])
    x = image[None].float() / 255
    if (height, width) != tuple(image.shape[-2:]):
        x = F.interpolate(x, (height, width), mode="bilinear", antialias=True)
    return x[0]


def choose_layer(backbone: Backbone, layer: str) -> str:
    """The name of a map of ``backbone.output_shape()``. UserError when there is none of it."""
    names = list(backbone.output_shape())
    if layer == "auto":
        return names[-1] if backbone.spec.is_vit else names[min(2, len(names) - 1)]
    if layer not in names:
        raise UserError(
            f"--layer {layer}{did_you_mean(layer, names)}: {backbone.name} has {', '.join(names)}"
        )
    return layer


class PatchModel(nn.Module):
    """list of uint8 [3, H, W] -> list of float32 [C, h, w]: one map of the backbone."""

    def __init__(self, backbone: Backbone, layer: str = "auto") -> None:
        super().__init__()
        self.backbone = backbone
        self.layer = choose_layer(backbone, layer)

    @property
    def stride(self) -> int:
        """Pixels of the (resized) image a cell of the map."""
        return self.backbone.output_shape()[self.layer].stride

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Images of one size go through the backbone together."""
        ready = [whole_patches(image, self.backbone.size_divisor) for image in images]
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, x in enumerate(ready):
            groups[tuple(x.shape)].append(index)
        maps: dict[int, Tensor] = {}
        for indices in groups.values():
            x = self.backbone.normalise(torch.stack([ready[i] for i in indices]))
            maps.update(zip(indices, self.backbone(x)[self.layer].float()))
        return [maps[index] for index in range(len(images))]


def as_it_is(result: Any, geometry: Geometry) -> Any:
    """The predictor's postprocess for results that stay in cells."""
    return result


def load_backbone(options: PatchOptions) -> Backbone:
    """The frozen backbone that the options name; random weights come from ``--seed``."""
    if options.weights == "none":
        torch.manual_seed(options.seed)
    return build_backbone(
        options.model_name,
        weights=options.weights,
        hub=options.hub,
        repo_dir=options.repo_dir,
        mean=options.mean,
        std=options.std,
    )


def make_predictor(
    model: nn.Module, options: PatchOptions, size: Size | None = None
) -> Predictor[Any]:
    """The predictor for a model of this module, by the options; size: instead of theirs."""
    return Predictor(
        model,
        size or options.image_size,
        "fit",
        device=options.device,
        precision=options.precision,
        batch=options.batch,
        postprocess=as_it_is,
    )


def patch_predictor(options: PatchOptions, size: Size | None = None) -> Predictor[Tensor]:
    """Images uint8 [H, W, 3] -> patch maps float32 [C, h, w] on the CPU. Raises UserError."""
    return make_predictor(PatchModel(load_backbone(options), options.layer), options, size)
