"""Mask queries on any backbone: queries and patches go through three blocks of the head's own, on
top of the backbone's maps. EoMT (``eomt.py``) puts them into the ViT's last blocks instead."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ...backbones.base import Backbone
from ...backbones.pyramid import build_pyramid
from ...core.structures import FeatureShape
from .mask_queries import QUERIES, Answer, MaskQueryHead, eomt_parts

BLOCKS = 3
LOSS_POINTS = 4096  # of a mask, as in Mask2Former (12544) for a third of the time


def positions(height: int, width: int, channels: int, like: Tensor) -> Tensor:
    """Sine and cosine positions [1, height * width, channels], scaled to the map's sides."""
    quarter = channels // 4
    bands = 10000 ** (-torch.arange(quarter, device=like.device, dtype=torch.float32) / quarter)

    def axis(count: int) -> Tensor:
        place = (torch.arange(count, device=like.device, dtype=torch.float32) + 0.5) / count
        angle = 2 * math.pi * place[:, None] * 16 * bands
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    y, x = axis(height), axis(width)
    grid = torch.cat(
        [y[:, None].expand(-1, width, -1), x[None].expand(height, -1, -1)], dim=-1
    ).flatten(0, 1)
    grid = torch.nn.functional.pad(grid, (0, channels - grid.shape[1]))
    return grid[None].to(like.dtype)


class QueryHead(MaskQueryHead):
    """Queries beside the patches of a pyramid's coarse map; masks at stride 4."""

    @classmethod
    def on(
        cls, backbone: Backbone, num_classes: int, channels: int, queries: int | None = None
    ) -> QueryHead:
        """See SegmentationHead."""
        return cls(backbone.output_shape(), num_classes, channels, queries or QUERIES)

    def __init__(
        self,
        shapes: dict[str, FeatureShape],
        num_classes: int,
        channels: int,
        queries: int = QUERIES,
    ) -> None:
        super().__init__()
        parts = eomt_parts()
        heads = next(h for h in (8, 6, 4, 2, 1) if channels % h == 0)
        config = parts.EomtConfig(
            hidden_size=channels,
            num_attention_heads=heads,
            num_labels=num_classes,
            num_queries=queries,
            num_upscale_blocks=1,
            layerscale_value=1.0,
            train_num_points=LOSS_POINTS,
            use_swiglu_ffn=False,
        )
        config._attn_implementation = "sdpa"
        self.pyramid = build_pyramid(shapes, channels, levels=2)
        self.reads = self.pyramid.reads
        self.query = nn.Embedding(queries, channels)
        self.blocks = nn.ModuleList(parts.EomtLayer(config) for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(channels)
        self.upscale = parts.EomtScaleLayer(config)
        self.finest = parts.EomtScaleLayer(config)
        self.mask_head = parts.EomtMaskHead(config)
        self.classify = nn.Linear(channels, num_classes + 1)
        self.set_loss(config, 1 / BLOCKS)  # the mean of the blocks' answers

    def queries(self, maps: dict[str, Tensor]) -> list[Answer]:
        fine, coarse = self.pyramid(maps).values()
        batch, channels, height, width = coarse.shape
        count = self.query.num_embeddings
        tokens = coarse.flatten(2).transpose(1, 2)
        tokens = tokens + positions(height, width, channels, tokens)
        tokens = torch.cat([self.query.weight[None].expand(batch, -1, -1), tokens], dim=1)
        answers = []
        for number, block in enumerate(self.blocks, start=1):
            tokens = block(tokens)
            if self.training or number == len(self.blocks):
                done = self.norm(tokens)
                patches = done[:, count:].transpose(1, 2).reshape(batch, channels, height, width)
                grown = self.upscale(patches)[..., : fine.shape[-2], : fine.shape[-1]]
                pixels = self.finest(grown + fine)
                found = self.mask_head(done[:, :count])
                masks = torch.einsum("bqc,bchw->bqhw", found, pixels)
                answers.append(Answer(masks, self.classify(done[:, :count])))
        return answers
