"""DEIMv2's neck for a plain ViT, the spatial tuning adapter (https://arxiv.org/abs/2509.20787,
section 3.2): its maps, all at one stride, resized to three, and joined with what a small network of
convolutions sees in the image itself at strides 8, 16 and 32. The layers are transformers'."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones.pyramid import Pyramid
from ...core.structures import FeatureShape

IMAGE = "image"  # the normalised batch [B, 3, H, W] among the maps
DETAIL = 16  # channels at stride 4; 2, 4 and 4 times as many at strides 8, 16 and 32


class SpatialTuning(Pyramid):
    """The last three maps (or one, three times) and the image -> p3, p4 and p5 of ``channels``.

    shapes: of the backbone's maps, shallow to deep, all of one stride. detail: the channels at
    stride 4 of what looks at the image.
    """

    def __init__(
        self,
        shapes: dict[str, FeatureShape],
        channels: int,
        levels: int = 3,
        detail: int = DETAIL,
    ) -> None:
        assert levels == 3
        from transformers.models.deimv2 import modeling_deimv2 as theirs

        names = list(shapes)[-3:]
        super().__init__(channels, {"p3": 8, "p4": 16, "p5": 32}, [*names, IMAGE])
        config: Any = theirs.Deimv2Config(
            spatial_tuning_adapter_inplanes=detail, encoder_hidden_dim=channels
        )
        self.adapter = theirs.Deimv2SpatialTuningAdapter(config)
        self.taken = names if len(names) == 3 else [names[-1]] * 3
        self.fusion = nn.ModuleList(
            theirs.Deimv2ConvNormLayer(
                config, shapes[name].channels + seen * detail, channels, 1, 1
            )
            for name, seen in zip(self.taken, (2, 4, 4))
        )

    def forward(self, maps: dict[str, Tensor]) -> OrderedDict[str, Tensor]:
        details = self.adapter(maps[IMAGE])
        levels = []
        for name, detail, fuse in zip(self.taken, details, self.fusion, strict=True):
            size = detail.shape[-2:]
            semantic = F.interpolate(maps[name], size=size, mode="bilinear", align_corners=False)
            levels.append(fuse(torch.cat([semantic.to(detail.dtype), detail], dim=1)))
        return OrderedDict(zip(self._strides, levels))
