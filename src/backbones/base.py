"""The backbone as every task sees it: normalised images in, named feature maps out."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.adapters import is_adapter, without_adapters
from ..core.structures import FeatureShape
from .catalog import IMAGENET, BackboneSpec, Statistics
from .hub import bundled_state
from .tuning import train_weights, tune_backbone
from .weights import looks_random


class Backbone(nn.Module):
    """A hub model, frozen or not, that answers {name: map}.

    taps ``multi``: a ViT's of the catalogue, all at the stride of its patch ("layer3" is the third
    block), or the four stages of a ConvNeXt at strides 4, 8, 16, 32 ("stage1" ...); ``last4``: a
    ViT's last four blocks; ``last``: the deepest alone.
    Frozen means eval mode, no gradient, no graph, whatever mode the whole model is in.
    """

    hub_model: Any  # answers like Meta's models
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        spec: BackboneSpec,
        hub_model: nn.Module,
        *,
        taps: str,
        fine_tune: bool,
        statistics: Statistics = IMAGENET,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.name = spec.name
        self.hub_model = hub_model
        self.frozen = not fine_tune
        self.taps = {"multi": spec.taps, "last": spec.taps[-1:]}.get(taps) or spec.last_taps
        self.size_divisor = spec.patch or max(spec.strides)
        self.num_layers = sum(spec.depths) + 1
        self.statistics = statistics
        for name in ("mean", "std"):
            values = torch.tensor(getattr(statistics, name)).view(-1, 1, 1)
            self.register_buffer(name, values, persistent=False)
        train_weights(hub_model, fine_tune)
        if self.frozen:
            hub_model.eval()

    def train(self, mode: bool = True) -> Backbone:
        """As nn.Module's, but a frozen hub model stays in eval mode, and so do batch norms of
        others' models that are not trained themselves."""
        super().train(mode)
        if self.frozen:
            self.hub_model.eval()
        for module in self.hub_model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train(module.training and any(p.requires_grad for p in module.parameters()))
        return self

    def tune(self, how: str, rank: int = 8) -> None:
        """Train what ``--tune`` says: 'frozen', 'lora' (adapters of that rank), 'last N' blocks or
        'all'. UserError where there is none of it."""
        tune_backbone(self, how, rank)

    def looks_random(self) -> bool:
        """Whether it was never trained."""
        return looks_random(self.hub_model)

    def output_shape(self) -> dict[str, FeatureShape]:
        """Names of the maps with channels and stride, shallow to deep."""
        if self.spec.is_vit:
            assert self.spec.patch is not None
            shape = FeatureShape(self.spec.dims[0], self.spec.patch)
            return {f"layer{tap + 1}": shape for tap in self.taps}
        return {
            f"stage{tap + 1}": FeatureShape(self.spec.dims[tap], self.spec.strides[tap])
            for tap in self.taps
        }

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 0..255 or float 0..1 [..., 3, H, W] -> normalised float, as the weights want."""
        if images.dtype == torch.uint8:
            dtype = self.mean.dtype
            return images.to(dtype).sub(self.mean * 255).div_(self.std * 255)
        return (images - self.mean) / self.std

    def blank(self, side: int) -> Tensor:
        """A normalised image of the mean colour, [1, channels, side, side]."""
        return self.mean.new_zeros(1, len(self.mean), side, side)

    def pad(self, x: Tensor) -> Tensor:
        """Zeros to the right and the bottom of [B, 3, H, W], up to a multiple of the divisor."""
        height, width = x.shape[-2:]
        right, bottom = -width % self.size_divisor, -height % self.size_divisor
        return F.pad(x, (0, right, 0, bottom)) if right or bottom else x

    def forward(self, x: Tensor, class_token: bool = False, norm: bool = True) -> dict[str, Tensor]:
        """[B, 3, H, W] normalised -> {name: [B, C, ceil(H / stride), ceil(W / stride)]}.

        class_token: each cell with the class token of its layer behind its own channels (2 C), as
        Meta's linear probes of depth have it; for a ConvNeXt that is the mean over the map. norm:
        with the final norm.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = self.hub_model.get_intermediate_layers(
                self.pad(x),
                n=list(self.taps),
                reshape=True,
                return_class_token=class_token,
                norm=norm,
            )
        if class_token:
            maps = [torch.cat([m, t[:, :, None, None].expand_as(m)], 1) for m, t in maps]
        return dict(zip(self.output_shape(), maps))

    def tokens(self, x: Tensor, layers: int = 1) -> tuple[tuple[Tensor, Tensor], ...]:
        """The last ``layers`` layers as (patch map [B, C, h, w], class token [B, C]) pairs.

        For a ConvNeXt a layer is a stage, and its class token the mean over the map.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.hub_model.get_intermediate_layers(
                self.pad(x), n=layers, reshape=True, return_class_token=True, norm=True
            )

    def tokens_below(self, x: Tensor) -> dict[str, Tensor]:
        """Of a ViT whose last blocks are somebody else's (``tail.Tail``), what they get: patches
        [B, C, h, w], and the class token and registers as one map: prefix [B, (1 + R) * C, 1, 1].
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            ((patches, token, registers),) = self.hub_model.get_intermediate_layers(
                self.pad(x),
                n=1,
                reshape=True,
                return_class_token=True,
                return_extra_tokens=True,
                norm=False,
            )
        prefix = torch.cat([token[:, None], registers], dim=1)
        return {"patches": patches, "prefix": prefix.flatten(1)[..., None, None]}

    def layer_of(self, parameter_name: str) -> int:
        """Depth of a parameter: 0 = embedding or stem, 1 .. = blocks, num_layers = final norm."""
        if hasattr(self.hub_model, "layer_of"):  # of a model that is not Meta's
            return self.hub_model.layer_of(parameter_name.removeprefix("hub_model."))
        is_norm = re.search(r"(?:^|\.)norms?\.", parameter_name) is not None
        if self.spec.is_vit:
            if match := re.search(r"(?:^|\.)blocks\.(\d+)\.", parameter_name):
                return 1 + int(match[1])
            return self.num_layers if is_norm else 0
        if match := re.search(r"stages\.(\d+)\.(?:blocks\.)?(\d+)\.", parameter_name):
            return 1 + sum(self.spec.depths[: int(match[1])]) + int(match[2])
        if match := re.search(
            r"stages\.(\d+)\.downsample|downsample_layers\.(\d+)", parameter_name
        ):
            return sum(self.spec.depths[: int(match[1] or match[2])])
        return self.num_layers if is_norm else 0

    def canonical_state(self) -> dict[str, Tensor]:
        """The weights by the names of the bundled hub, whatever code computes with them, and
        without adapters."""
        state = self.hub_model.state_dict()
        plain = {name: value for name, value in state.items() if not is_adapter(name)}
        return bundled_state(self.spec, plain)

    def adapt_state_dict(self, state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
        """Rename a checkpoint's backbone part (below ``prefix``) from Meta's names to ours, its
        adapters merged.

        A run that trained through a clone of the official code has Meta's names; inference goes
        through the bundled hub, which needs no clone.
        """
        inner = f"{prefix}hub_model."
        state = without_adapters(state)
        mine = {k.removeprefix(inner): v for k, v in state.items() if k.startswith(inner)}
        if not mine or not hasattr(self.hub_model, "convert_official"):
            return state
        if any(key.startswith("model.") for key in mine):
            return state
        if any(is_adapter(key) for key in mine):  # of a head alone: they go with the weights here
            mine = without_adapters(self.hub_model.official_state() | mine)
        converted = self.hub_model.convert_official(mine)
        others = {k: v for k, v in state.items() if not k.startswith(inner)}
        return others | {f"{inner}{key}": value for key, value in converted.items()}
