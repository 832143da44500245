"""The last blocks of a vision transformer, for a head that works inside of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.errors import UserError
from .base import Backbone

Grid = tuple[int, int]  # rows and columns of patches


class Tail(nn.Module):
    """The last ``count`` blocks and the final norm of a ViT, taken out of its backbone: what is
    left of that answers ``tokens_below`` alone. They are trained, whether the backbone is or not.

    Tokens are [B, extra + 1 + registers + h * w, C]: ``extra`` of the head's own, without a place
    in the image (DINOv3's rotary positions pass them over), then the ViT's as they always were.
    UserError for a backbone that is no ViT, or is not the bundled hub's own.
    """

    def __init__(self, backbone: Backbone, count: int, extra: int, *, user: str) -> None:
        super().__init__()
        spec, hub = backbone.spec, backbone.hub_model
        if not spec.is_vit:
            raise UserError(
                f"{user} works inside the last blocks of a vision transformer, and {spec.name} is "
                "none: choose another --model-name, or another --head"
            )
        if not hasattr(hub, "take_last"):
            raise UserError(
                f"{user} needs the bundled hub's DINO models: the blocks of a clone or of another "
                "library take no mask; give --hub bundled and their --model-name"
            )
        self.channels, self.patch = spec.dims[0], spec.patch or 16
        self.extra, self.prefix = extra, 1 + spec.registers
        self.blocks, self.norm = hub.take_last(count)
        self.requires_grad_(True)
        for block in self.blocks:
            if hasattr(block.attn, "num_prefix_tokens"):  # those that are not turned
                block.attn.num_prefix_tokens = extra + self.prefix
        self._rotary = hub.rotary

    def join(self, extra: Tensor, below: dict[str, Tensor]) -> tuple[Tensor, Grid]:
        """The head's tokens [extra, C] before those of ``Backbone.tokens_below``; the grid."""
        patches = below["patches"]
        prefix = below["prefix"].reshape(len(patches), self.prefix, self.channels)
        own = extra.expand(len(patches), -1, -1).to(patches.dtype)
        tokens = torch.cat([own, prefix, patches.flatten(2).transpose(1, 2)], dim=1)
        return tokens, (patches.shape[-2], patches.shape[-1])

    def block(self, index: int, tokens: Tensor, grid: Grid, mask: Tensor | None = None) -> Tensor:
        """Tokens through one of the blocks. mask: bool [B, N, N] (or None: everyone looks at
        everyone), True where the token of that row may look at that of the column."""
        rope = self._rotary(*grid)
        turned = {} if rope is None else {"rope": rope}
        looks = None if mask is None else mask[:, None]
        return self.blocks[index](tokens, attn_mask=looks, **turned)

    def split(self, tokens: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """Normed tokens -> the head's own [B, extra, C], and the patches [B, C, h, w]."""
        normed = self.norm(tokens)
        patches = normed[:, self.extra + self.prefix :].transpose(1, 2)
        return normed[:, : self.extra], patches.reshape(len(tokens), self.channels, *grid)
