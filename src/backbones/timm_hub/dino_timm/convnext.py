"""A timm ConvNeXt that answers like the official DINOv3 ConvNeXt hub models.

Official code: https://github.com/facebookresearch/dinov3 (models/convnext.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .hub_model import HubModel


class TimmConvNeXt(HubModel):
    """timm's ConvNeXt behind the official methods; a "layer" is one of the four stages."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.embed_dims: list[int] = [
            stage.blocks[-1].conv_dw.out_channels for stage in model.stages
        ]
        self.embed_dim = self.embed_dims[-1]
        self.n_blocks = 4
        self.n_storage_tokens = 0
        self.patch_size: int | None = None

    @property
    def norm(self) -> nn.LayerNorm:
        """The final layer norm (of the last stage)."""
        return self.model.head.norm

    def _stages(self, x: Tensor, keep: Sequence[int]) -> list[Tensor]:
        x = self.model.stem(x)
        kept = []
        for index, stage in enumerate(self.model.stages):
            x = stage(x)
            if index in keep:
                kept.append(x)
            if index == max(keep):
                break
        return kept

    def _normalise(self, tokens: Tensor) -> Tensor:
        """The final norm on [..., C]."""
        norm = self.norm
        return F.layer_norm(tokens, (self.embed_dim,), norm.weight, norm.bias, norm.eps)

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_class_token: bool = False,
        norm: bool = True,
    ) -> tuple:
        """Maps of some stages: [B, h * w, C], or [B, C, h, w] with ``reshape``.

        n: how many of the last stages, or their indices (from 0). The class token is the mean
        over the map; the final norm goes on the last stage only.
        """
        keep = range(4 - n, 4) if isinstance(n, int) else list(n)
        outputs = []
        for index, stage_map in zip(sorted(keep), self._stages(x, keep)):
            pooled = stage_map.mean((-2, -1))
            if norm and index == 3:
                pooled = self._normalise(pooled)
                stage_map = self._normalise(stage_map.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            patches = stage_map if reshape else stage_map.flatten(2).transpose(1, 2)
            outputs.append((patches, pooled))
        if return_class_token:
            return tuple(outputs)
        return tuple(patches for patches, _ in outputs)

    def forward_features(self, x: Tensor, masks: Tensor | None = None) -> dict[str, Tensor | None]:
        """The official dictionary: pooled and normalised "class token" [B, C], patch tokens."""
        if masks is not None:
            raise ValueError("DINOv3's ConvNeXt takes no masks")
        (last,) = self._stages(x, [3])
        prenorm = last.flatten(2).transpose(1, 2)
        tokens = self._normalise(torch.cat([prenorm.mean(1, keepdim=True), prenorm], dim=1))
        return {
            "x_norm_clstoken": tokens[:, 0],
            "x_storage_tokens": tokens[:, 1:1],
            "x_norm_patchtokens": tokens[:, 1:],
            "x_prenorm": prenorm,
            "masks": None,
        }
