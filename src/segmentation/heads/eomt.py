"""Mask queries, after EoMT (https://arxiv.org/abs/2503.19108).

EoMT puts its queries into the last blocks of the encoder itself, which only works when these
blocks are trained. Here the backbone is often frozen and comes from a hub whose blocks we do not
open, so the last blocks are the head's own: queries and patch tokens go through them together,
on top of the backbone's maps (the way of the Plain Mask Transformer; it gives 0.3 to 1.9 points
for being able to freeze). The blocks, the upscaling, the mask head, the matcher and the loss are
those of ``transformers`` (models/eomt); nothing is downloaded.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ...backbones.pyramid import build_pyramid
from ...core.errors import UserError
from ...core.structures import IGNORE, FeatureShape
from .base import Criterion, SegmentationHead

QUERIES = 100
BLOCKS = 3
LOSS_POINTS = 4096  # of a mask, as in Mask2Former (12544) for a third of the time
_LEAST = 1e-6


def _parts() -> Any:
    """transformers' EoMT module; UserError when the package is missing or too old."""
    import os

    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        from transformers.models.eomt import modeling_eomt
    except ImportError as error:
        raise UserError(
            f"--head eomt takes its parts from the package transformers (4.54 or later) and "
            f"scipy: pip install transformers scipy ({error})"
        ) from None
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
    return modeling_eomt


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


class EomtHead(SegmentationHead):
    """Queries, each with a class and a mask; a pixel's class is scored by their sum."""

    def __init__(self, shapes: dict[str, FeatureShape], num_classes: int, channels: int) -> None:
        super().__init__()
        parts = _parts()
        heads = next(h for h in (8, 6, 4, 2, 1) if channels % h == 0)
        config = parts.EomtConfig(
            hidden_size=channels,
            num_attention_heads=heads,
            num_labels=num_classes,
            num_queries=QUERIES,
            num_upscale_blocks=1,
            layerscale_value=1.0,
            train_num_points=LOSS_POINTS,
            use_swiglu_ffn=False,
        )
        config._attn_implementation = "sdpa"
        self.num_classes = num_classes
        self.pyramid = build_pyramid(shapes, channels, levels=2)
        self.reads = self.pyramid.reads
        self.query = nn.Embedding(QUERIES, channels)
        self.blocks = nn.ModuleList(parts.EomtLayer(config) for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(channels)
        self.upscale = parts.EomtScaleLayer(config)
        self.finest = parts.EomtScaleLayer(config)
        self.mask_head = parts.EomtMaskHead(config)
        self.classify = nn.Linear(channels, num_classes + 1)
        self.weights = {
            "loss_cross_entropy": config.class_weight,
            "loss_mask": config.mask_weight,
            "loss_dice": config.dice_weight,
        }
        self.loss = parts.EomtLoss(config, self.weights)

    def queries(self, maps: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """(mask logits [B, Q, h, w] at stride 4, class logits [B, Q, C + 1]): in training after
        each block (deep supervision), otherwise after the last."""
        fine, coarse = self.pyramid(maps).values()
        batch, channels, height, width = coarse.shape
        tokens = coarse.flatten(2).transpose(1, 2)
        tokens = tokens + positions(height, width, channels, tokens)
        tokens = torch.cat([self.query.weight[None].expand(batch, -1, -1), tokens], dim=1)
        answers = []
        for number, block in enumerate(self.blocks, start=1):
            tokens = block(tokens)
            if self.training or number == len(self.blocks):
                done = self.norm(tokens)
                patches = done[:, QUERIES:].transpose(1, 2).reshape(batch, channels, height, width)
                grown = self.upscale(patches)[..., : fine.shape[-2], : fine.shape[-1]]
                pixels = self.finest(grown + fine)
                found = self.mask_head(done[:, :QUERIES])
                masks = torch.einsum("bqc,bchw->bqhw", found, pixels)
                answers.append((masks, self.classify(done[:, :QUERIES])))
        return answers

    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        masks, classes = self.queries(maps)[-1]
        shares = classes.float().softmax(-1)[..., :-1]
        scores = torch.einsum("bqc,bqhw->bchw", shares, masks.float().sigmoid())
        return scores.clamp(min=_LEAST).log()

    def losses(
        self, maps: dict[str, Tensor], masks: Tensor, criterion: Criterion
    ) -> dict[str, Tensor]:
        """The matched queries' class, mask and Dice losses, summed over the blocks.

        The criterion is not asked. A pixel to be ignored belongs to no mask, as in Mask2Former;
        an image without a single labelled pixel is left out.
        """
        labels = [mask.unique() for mask in masks]
        labels = [found[found != IGNORE].long() for found in labels]
        use = [i for i, found in enumerate(labels) if len(found)]
        answers = self.queries(maps)
        if not use:
            return {"mask": sum(m.sum() * 0 + c.sum() * 0 for m, c in answers)}  # type: ignore
        truths = [(masks[i][None] == labels[i][:, None, None]).float() for i in use]
        kept = [labels[i] for i in use]
        total = {name: torch.zeros((), device=masks.device) for name in self.weights}
        for mask_logits, class_logits in answers:
            terms = self.loss(mask_logits[use].float(), class_logits[use].float(), truths, kept)
            for name, value in terms.items():
                total[name] = total[name] + self.weights[name] * value / len(answers)
        return {name.removeprefix("loss_"): value for name, value in total.items()}
