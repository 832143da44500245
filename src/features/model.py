"""A frozen backbone that turns batches of images into one vector (or map) each."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import Backbone
from ..backbones.build import build_backbone
from ..core.errors import UserError
from ..core.structures import ResizeMode, Size
from ..engine.checkpoint import fingerprint
from ..engine.precision import arithmetic, choose_device, choose_type, lower_weights
from .reading import ImageBatch
from .settings import FeatureOptions, What

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """All that a vector depends on beside the picture: vectors of two identities must not meet.

    weights: fingerprint of the backbone; imgsz: (width, height); mean, std: the normalisation;
    unit: whether vectors have length 1.
    """

    model_name: str
    weights: str
    what: str
    imgsz: tuple[int, int]
    resize: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    unit: bool

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_plain(cls, content: dict[str, Any]) -> Identity:
        """The inverse of ``plain``. KeyError or TypeError when the content is something else."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in content.items()
        }
        return cls(**values)


class FeatureExtractor:
    """A backbone on its device, and what is taken from it.

    what: cls = class token [C] (ConvNeXt: the normed mean over the last map); patches = mean of
    the last map [C]; cls+patches = both joined [2C]; map = [C, h, w]. An image's answer does not
    depend on the batch it is in (but for rounding): its padding reaches only to the next multiple
    of the backbone's divisor.
    """

    def __init__(
        self,
        backbone: Backbone,
        imgsz: Size,
        resize: ResizeMode,
        *,
        what: What = "cls",
        unit: bool = False,
        device: str = "auto",
        precision: Literal["auto", "32", "16", "bf16"] = "auto",
    ) -> None:
        if unit and what == "map":
            raise UserError("--unit scales vectors, not maps; leave it out, or take another --what")
        self.device = choose_device(device)
        self.dtype = choose_type(precision, self.device, backbone.name)
        weights = fingerprint(backbone)
        self.backbone = backbone.eval().to(self.device)
        lower_weights(backbone, self.dtype)
        self.imgsz, self.resize, self.what, self.unit = Size(*imgsz), resize, what, unit
        self.identity = Identity(
            model_name=backbone.name,
            weights=weights,
            what=what,
            imgsz=(imgsz[0], imgsz[1]),
            resize=resize,
            mean=_figures(backbone.mean),
            std=_figures(backbone.std),
            unit=unit,
        )

    @property
    def channels(self) -> int:
        """Length of a vector, or channels of a map."""
        return self.backbone.spec.dims[-1] * (2 if self.what == "cls+patches" else 1)

    @property
    def divisor(self) -> int:
        """Padded sides are multiples of this many pixels."""
        return self.backbone.size_divisor

    @torch.inference_mode()
    def __call__(self, batch: ImageBatch) -> Tensor:
        """float32 [B, D], or [B, C, h, w] for maps, on the model's device.

        Raises UserError when the GPU's memory is not enough.
        """
        try:
            pixels = batch.pixels.to(self.device, non_blocking=True)
            x = self.backbone.normalise(pixels.permute(0, 3, 1, 2))
            height, width = x.shape[-2:]
            for i, size in enumerate(batch.sizes):
                if size.height < height:
                    x[i, :, size.height :] = 0
                if size.width < width:
                    x[i, :, :, size.width :] = 0
            with arithmetic(self.dtype, self.device):
                ((patches, token),) = self.backbone.tokens(x)
        except torch.OutOfMemoryError:
            raise UserError(
                f"the GPU is out of memory for {len(batch.sizes)} images of {width}x{height}; "
                "lower --batch or --imgsz"
            ) from None
        return self._take(patches.float(), token.float())

    def _take(self, patches: Tensor, token: Tensor) -> Tensor:
        if self.what == "map":
            return patches
        parts = {"cls": [token], "patches": [patches.mean((-2, -1))]}
        parts["cls+patches"] = parts["cls"] + parts["patches"]
        vectors = torch.cat(parts[self.what], dim=1)
        return F.normalize(vectors, dim=1) if self.unit else vectors


def _figures(values: Tensor) -> tuple[float, ...]:
    return tuple(round(value, 6) for value in values.flatten().tolist())


def build_feature_extractor(
    options: FeatureOptions, what: What, unit: bool = False
) -> FeatureExtractor:
    """The model that the options of a command ask for. Random weights come from ``--seed``, so
    that a run can be resumed and an index searched with them. Raises UserError."""
    if options.weights == "none":
        torch.manual_seed(options.seed)
    backbone = build_backbone(
        options.model_name,
        weights=options.weights,
        hub=options.hub,
        repo_dir=options.repo_dir,
        feature_extractor="last",
        mean=options.mean,
        std=options.std,
    )
    return FeatureExtractor(
        backbone,
        Size(*options.imgsz),
        options.resize,
        what=what,
        unit=unit,
        device=options.device,
        precision=options.precision,
    )
