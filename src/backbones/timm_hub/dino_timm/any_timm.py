"""Any feature extractor of timm, by its name: SigLIP2's ViTs, EVA, C-RADIO, ConvNeXt, Swin ..."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import timm
from torch import Tensor, nn

from .foreign import Foreign

# What lets a model take images of any size, by the keywords of its class.
_SIZES = [
    {"dynamic_img_size": True},
    {"strict_img_size": False, "dynamic_mask": True},
    {"strict_img_size": False},
    {},
]


class AnyTimm(Foreign):
    """What timm's ``forward_intermediates`` answers, its final norm on all layers that it knows
    one for."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        config = timm.data.resolve_data_config({}, model=model)
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        reductions = [int(info["reduction"]) for info in model.feature_info]
        self.is_vit = len(set(reductions)) == 1
        first = 0 if self.is_vit else next(i for i, r in enumerate(reductions) if r >= 4)
        self._kept = list(range(first, len(reductions)))
        self.patch_size = reductions[0] if self.is_vit else None
        self.has_class = any(name.endswith("cls_token") for name, _ in model.named_parameters())
        prefix = getattr(model, "num_prefix_tokens", 0)
        self.n_storage_tokens = max(0, prefix - self.has_class)
        self.look(len(self._kept), 4 * max(reductions) if self.is_vit else 2 * max(reductions))

    def read(self, x: Tensor, layers: Sequence[int], norm: bool) -> list[tuple]:
        """See Foreign."""
        more = {"return_prefix_tokens": True} if self.n_storage_tokens or self.has_class else {}
        answers = self.model.forward_intermediates(
            x,
            indices=[self._kept[layer] for layer in layers],
            norm=norm,
            output_fmt="NCHW",
            intermediates_only=True,
            **more,
        )
        if not more:
            return [(value, None) for value in answers]
        return [(value, prefix[:, 0] if self.has_class else None) for value, prefix in answers]


def any_timm(name: str, pretrained: bool, weights: str | None) -> AnyTimm:
    """A model of timm's by its name (with or without a tag): random, timm's own weights, or those
    of a file. Raises ValueError for a name that timm does not know or that has no feature maps."""
    known = name.partition(".")[0]
    if not timm.is_model(known):
        near = difflib.get_close_matches(known, timm.list_models(), n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise ValueError(f"timm {timm.__version__} has no model {known}{hint}")
    for sizes in _SIZES:
        try:
            model = timm.create_model(
                name, pretrained=pretrained and weights is None, num_classes=0, **sizes
            )
            break
        except TypeError:
            if not sizes:
                raise
    if not hasattr(model, "forward_intermediates") or not getattr(model, "feature_info", None):
        raise ValueError(f"{name} has no feature maps in timm")
    if pretrained and weights is not None:
        timm.models.load_checkpoint(model, weights, strict=True)
    return AnyTimm(model)
