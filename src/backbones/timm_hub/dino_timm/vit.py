"""A timm vision transformer that answers like the official DINOv3 and DINOv2 hub models.

Official code: https://github.com/facebookresearch/dinov3 (models/vision_transformer.py) and
https://github.com/facebookresearch/dinov2. Numbers agree to rounding, see tests/backbones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .hub_model import HubModel


class TimmViT(HubModel):
    """timm's Eva (DINOv3) or VisionTransformer (DINOv2) behind the official methods.

    Inputs are float [B, 3, H, W], already normalised; rows and columns beyond a multiple of the
    patch are left out, as in the official code.
    """

    def __init__(self, model: nn.Module, patch_size: int, antialias: bool = False) -> None:
        super().__init__()
        self.model = model
        self.patch_size = patch_size
        self.embed_dim: int = model.embed_dim
        self.num_heads: int = _heads(model)
        self.n_storage_tokens: int = 0 if model.reg_token is None else model.reg_token.shape[1]
        self.antialias = antialias
        self._places: dict[tuple, Tensor] = {}  # rotary positions by grid, as they were made
        self.n_blocks = len(model.blocks)
        # Only pretraining has use for it: see learn_mask_token. Without it checkpoints stay as
        # they are, and no parameter goes without a gradient.
        self.mask_token: nn.Parameter | None = None
        self.file_mask_token: Tensor | None = None  # [1, C], what the weight file held

    def learn_mask_token(self) -> None:
        """Make the token that masked patches show to ``forward_features`` a parameter: that of
        the weight file that was loaded, else zeros, as in the official code."""
        if self.mask_token is None:
            value = self.file_mask_token
            if value is None:
                value = torch.zeros(1, self.embed_dim)
            self.mask_token = nn.Parameter(value.detach().clone().float())

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, shallow to deep."""
        return self.model.blocks

    @property
    def norm(self) -> nn.LayerNorm:
        """The final layer norm."""
        return self.model.norm

    def tokens(
        self, x: Tensor, masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, tuple[int, int]]:
        """Image -> (tokens [B, 1 + registers + h * w, C] before block 0, rope, (h, w)).

        masks: bool [B, h * w]: patches that show the mask token instead.
        """
        p = self.patch_size
        h, w = x.shape[-2] // p, x.shape[-1] // p
        x = self.model.patch_embed(x[..., : h * p, : w * p])
        if self.mask_token is not None:
            # Without masks as well, so that it always has a gradient (DDP waits for it).
            masks = (
                x.new_zeros(x.shape[:1] + (h * w,), dtype=torch.bool) if masks is None else masks
            )
            masks = masks.view(-1, h, w, 1)
            x = torch.where(masks, self.mask_token.to(x.dtype), x)
        if self.rope is not None:
            patches = x.flatten(1, 2)
            prefix = [self.model.cls_token, self.model.reg_token]
            parts = [one.expand(len(x), -1, -1) for one in prefix if one is not None]
            return torch.cat([*parts, patches], dim=1), self._rotary(h, w), (h, w)
        return self._add_positions(x.flatten(1, 2), h, w), None, (h, w)

    @property
    def rope(self) -> nn.Module | None:
        """Rotary position embedding (DINOv3), or None (DINOv2)."""
        return getattr(self.model, "rope", None)

    def take_last(self, count: int) -> tuple[nn.Module, nn.Module]:
        """Give the last ``count`` blocks and the final norm away: this model is then what is below
        them, without a norm."""
        assert 0 < count < self.n_blocks
        blocks, norm = self.model.blocks[-count:], self.model.norm
        self.model.blocks, self.model.norm = self.model.blocks[:-count], nn.Identity()
        self.n_blocks -= count
        return blocks, norm

    def rotary(self, h: int, w: int) -> Tensor | None:
        """The rotary positions of a grid (DINOv3), or None (DINOv2)."""
        return None if self.rope is None else self._rotary(h, w)

    def _rotary(self, h: int, w: int) -> Tensor:
        """timm's rotary positions of a grid. timm makes them on the host and uploads them at each
        forward; here they are remembered, for the last sizes."""
        periods = self.model.rope.periods
        key = (h, w, periods.device, periods.dtype)
        if key not in self._places:
            if len(self._places) >= 64:
                self._places.clear()
            # Made outside of inference mode, so that training may use the remembered tensor.
            with torch.inference_mode(False), torch.no_grad():
                self._places[key] = self.model.rope.get_embed(shape=(h, w))
        return self._places[key]

    def _add_positions(self, patches: Tensor, h: int, w: int) -> Tensor:
        """DINOv2: patches [B, h * w, C] + resampled position embedding, behind their prefix."""
        positions, cls_token = self.model.pos_embed, self.model.cls_token
        if positions.shape[1] == math.isqrt(positions.shape[1]) ** 2:  # no class position in it
            prefix = cls_token
        else:
            prefix, positions = cls_token + positions[:, :1], positions[:, 1:]
        side = math.isqrt(positions.shape[1])
        if (h, w) != (side, side):
            positions = self._resample(positions, side, h, w)
        parts = [prefix.expand(len(patches), -1, -1)]
        if self.model.reg_token is not None:
            parts.append(self.model.reg_token.expand(len(patches), -1, -1))
        return torch.cat([*parts, patches + positions], dim=1)

    def _resample(self, positions: Tensor, side: int, h: int, w: int) -> Tensor:
        """Position grid [1, side * side, C] -> [1, h * w, C] by the official hub's two rules.

        Without registers: scale factor with an offset of 0.1, no antialiasing; with registers:
        target size, antialiased (dinov2/hub/backbones.py).
        """
        grid = positions.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
        if self.antialias:
            grid = F.interpolate(grid, size=(h, w), mode="bicubic", antialias=True)
        else:
            factors = ((h + 0.1) / side, (w + 0.1) / side)
            grid = F.interpolate(grid, scale_factor=factors, mode="bicubic")
        return grid.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)

    def _run_blocks(
        self, x: Tensor, keep: Sequence[int], masks: Tensor | None = None
    ) -> tuple[list[Tensor], tuple[int, int]]:
        tokens, rope, grid = self.tokens(x, masks)
        kept = []
        for index, block in enumerate(self.model.blocks):
            tokens = block(tokens) if rope is None else block(tokens, rope=rope)
            if index in keep:
                kept.append(tokens)
            if index == max(keep):
                break
        return kept, grid

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_class_token: bool = False,
        norm: bool = True,
        return_extra_tokens: bool = False,
    ) -> tuple:
        """Patch tokens of some blocks, in the order of depth.

        n: how many of the last blocks, or their indices (from 0). Each answer is [B, h * w, C],
        or [B, C, h, w] with ``reshape``; with ``return_class_token`` a pair with [B, C]; with
        ``return_extra_tokens`` the registers [B, R, C] follow.
        """
        keep = range(self.n_blocks - n, self.n_blocks) if isinstance(n, int) else list(n)
        outputs, (h, w) = self._run_blocks(x, keep)
        if norm:
            outputs = [self.model.norm(out) for out in outputs]
        first = 1 + self.n_storage_tokens
        patches = [out[:, first:] for out in outputs]
        if reshape:
            patches = [
                p.reshape(len(p), h, w, -1).permute(0, 3, 1, 2).contiguous() for p in patches
            ]
        if not return_class_token and not return_extra_tokens:
            return tuple(patches)
        columns: list[list[Tensor]] = [patches]
        if return_class_token:
            columns.append([out[:, 0] for out in outputs])
        if return_extra_tokens:
            columns.append([out[:, 1:first] for out in outputs])
        return tuple(zip(*columns))

    def forward_features(self, x: Tensor, masks: Tensor | None = None) -> dict[str, Tensor | None]:
        """The official dictionary: normalised class [B, C], register and patch tokens.

        masks: bool [B, h * w], patches that show the mask token (after ``learn_mask_token``).
        """
        if masks is not None and self.mask_token is None:
            raise ValueError("masks need a mask token: call learn_mask_token() first")
        (prenorm,), _ = self._run_blocks(x, [self.n_blocks - 1], masks)
        tokens = self.model.norm(prenorm)
        first = 1 + self.n_storage_tokens
        return {
            "x_norm_clstoken": tokens[:, 0],
            "x_storage_tokens": tokens[:, 1:first],
            "x_norm_regtokens": tokens[:, 1:first],
            "x_norm_patchtokens": tokens[:, first:],
            "x_prenorm": prenorm,
            "masks": masks,
        }


def _heads(model: nn.Module) -> int:
    return model.blocks[0].attn.num_heads
