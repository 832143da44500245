"""EoMT, the encoder-only mask transformer (https://arxiv.org/abs/2503.19108).

Queries join the tokens before the ViT's last blocks and go through them together; then a linear
layer names their classes, and an MLP and the upscaled patches give their masks. While training,
each of these blocks lets a query look only at the patches of the mask that it has so far; this
masked attention is annealed away, block after block, so that inference is a plain ViT.

The last blocks and the final norm are the head's: trained at --lr, even where the backbone is
frozen (a frozen encoder with unfrozen last blocks keeps --cache-features possible: what is kept is
the tokens below them). Numbers agree with ``transformers``' EomtForUniversalSegmentation and
EomtDinov3ForUniversalSegmentation (tests/segmentation/test_eomt.py).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones.base import Backbone
from ...backbones.tail import Grid, Tail
from .mask_queries import QUERIES, Answer, MaskQueryHead, eomt_parts

# Of a ViT's blocks those that queries go through, as the paper's models (S, B: 3, L: 4, g: 5).
BLOCKS = {12: 3, 24: 4}
MOST_BLOCKS = 5
ANNEALING = 0.9  # power of the polynomial by which a block's masking fades


# Nothing can be read off a tensor there: a run before it has done it. (torch 2.6 knows the second.)
_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


class EomtHead(MaskQueryHead):
    """See above. queries: their number (the paper: 100 for semantic, 200 for panoptic and instance
    segmentation)."""

    steps: Tensor
    masking: Tensor

    def __init__(self, backbone: Backbone, num_classes: int, queries: int = QUERIES) -> None:
        super().__init__()
        parts, depth = eomt_parts(), backbone.spec.depths[0]
        count = BLOCKS.get(depth, MOST_BLOCKS)
        self.tail = Tail(backbone, count, queries, user="--head eomt")
        self.reads = [f"tokens before block {depth - count + 1}"]
        channels = self.tail.channels
        config = parts.EomtConfig(
            hidden_size=channels,
            num_labels=num_classes,
            num_queries=queries,
            num_upscale_blocks=max(1, round(math.log2(self.tail.patch)) - 2),  # to stride 4
        )
        self.query = nn.Embedding(queries, channels)
        self.upscale = parts.EomtScaleBlock(config)
        self.mask_head = parts.EomtMaskHead(config)
        self.classify = nn.Linear(channels, num_classes + 1)
        self.set_loss(config)
        self.total = 0
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("masking", torch.ones(count))  # share of the queries, by block
        self._known: tuple[Any, list[bool]] = (None, [])

    @classmethod
    def on(
        cls, backbone: Backbone, num_classes: int, channels: int, queries: int | None = None
    ) -> EomtHead:
        """channels: none, the head is as wide as the ViT."""
        return cls(backbone, num_classes, queries or QUERIES)

    def read(self, backbone: Backbone, batch: Tensor) -> dict[str, Tensor]:
        """The tokens below the head's blocks."""
        return backbone.tokens_below(batch)

    def plan(self, steps: int) -> None:
        """How many training steps there will be; unless told, the masking stays."""
        self.total = steps

    def queries(self, maps: dict[str, Tensor]) -> list[Answer]:
        """See ``MaskQueryHead.queries``; masks at a quarter of the patch size or thereabouts."""
        if self.training:
            self._anneal()
        tokens, grid = self.tail.join(self.query.weight, maps)
        answers = []
        for index, masked in enumerate(self._masked()):
            mask = None
            if masked:
                answers.append(self._answer(tokens, grid))
                mask = self._mask(answers[-1].masks.detach(), tokens.shape[1], grid, index)
            tokens = self.tail.block(index, tokens, grid, mask)
        answers.append(self._answer(tokens, grid))
        return answers if self.training else answers[-1:]

    def _answer(self, tokens: Tensor, grid: Grid) -> Answer:
        queries, patches = self.tail.split(tokens, grid)
        masks = torch.einsum("bqc,bchw->bqhw", self.mask_head(queries), self.upscale(patches))
        return Answer(masks, self.classify(queries))

    def _mask(self, logits: Tensor, tokens: int, grid: Grid, index: int) -> Tensor:
        """bool [B, N, N]: a query looks at the patches of its own mask, everybody else at all; in
        training a random share of the queries is masked, as the annealing has it."""
        inside = F.interpolate(logits.float(), size=grid, mode="bilinear").flatten(2) > 0
        if self.training:
            drawn = torch.rand(inside.shape[:2], device=inside.device) > self.masking[index]
            inside = inside | drawn[..., None]
        mask = inside.new_ones(len(logits), tokens, tokens)
        mask[:, : self.tail.extra, self.tail.extra + self.tail.prefix :] = inside
        return mask

    def _anneal(self) -> None:
        """Count a step. Of n blocks the k-th is unmasked from (k + 1) / (n + 2) of the training on
        until (k + 2) / (n + 2), k from 0: the paper's schedule, without a wait for the device."""
        self.steps += 1
        if self.total:
            count = len(self.masking)
            begin = torch.arange(1, count + 1, device=self.masking.device) / (count + 2)
            done = (self.steps / self.total - begin) * (count + 2)
            self.masking.copy_((1 - done.clamp(0, 1)) ** ANNEALING)

    def _masked(self) -> list[bool]:
        """Whether each block masks: in training all; else those that masked half of the queries or
        more when the training ended (read off the device where it has changed)."""
        if self.training:
            return [True] * len(self.masking)
        version = (id(self.masking), self.masking._version)
        if self._known[0] != version and not _exporting():
            self._known = version, [share > 0.5 for share in self.masking.tolist()]
        return self._known[1]
