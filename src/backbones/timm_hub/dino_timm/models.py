"""How each architecture of the table is built from timm's classes."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from .architectures import ARCHITECTURES, Architecture
from .convnext import TimmConvNeXt
from .vit import TimmViT


def build(name: str) -> nn.Module:
    """A model of the table with random weights."""
    arch = ARCHITECTURES[name]
    builders = {"dinov3_vit": _dinov3_vit, "dinov2_vit": _dinov2_vit, "convnext": _convnext}
    builders["deimv2_vit"] = _deimv2_vit
    return builders[arch.kind](arch)


def _eva(arch: Architecture, eps: float, **different: Any) -> Any:
    """timm's ViT with DINOv3's rotary positions; different: what else an architecture has."""
    from timm.models.eva import Eva

    return Eva(
        patch_size=16,
        num_classes=0,
        global_pool="token",
        dynamic_img_size=True,
        embed_dim=arch.dims[0],
        depth=arch.depths[0],
        num_heads=arch.heads,
        rope_type="dinov3",
        rope_temperature=100,
        rope_rotate_half=True,
        use_rot_pos_emb=True,
        use_abs_pos_emb=False,
        use_fc_norm=False,
        norm_layer=partial(nn.LayerNorm, eps=eps),
        **different,
    )


def _dinov3_vit(arch: Architecture) -> TimmViT:
    model = _eva(
        arch,
        1e-5,
        qkv_bias=arch.qkv_bias,
        mlp_ratio=arch.mlp_ratio,
        swiglu_mlp=arch.swiglu,
        swiglu_align_to=arch.align,
        init_values=arch.layer_scale,
        num_reg_tokens=arch.registers,
    )
    return TimmViT(model, patch_size=16)


def _deimv2_vit(arch: Architecture) -> TimmViT:
    """DINOv3's, but for: no registers, layer scale or final norm, and a bias on the keys too."""
    model = _eva(arch, 1e-6, qkv_bias=False, init_values=None)
    model.norm = nn.Identity()
    for block in model.blocks:
        block.attn.qkv.bias = nn.Parameter(torch.zeros(3 * arch.dims[0]))
    return TimmViT(model, patch_size=16)


def _dinov2_vit(arch: Architecture) -> TimmViT:
    import timm

    model = timm.create_model(
        arch.published.split(".")[0], num_classes=0, dynamic_img_size=True, global_pool="token"
    )
    return TimmViT(model, patch_size=14, antialias=arch.registers > 0)


def _convnext(arch: Architecture) -> TimmConvNeXt:
    from timm.models.convnext import ConvNeXt

    model = ConvNeXt(
        depths=arch.depths, dims=arch.dims, ls_init_value=arch.layer_scale, num_classes=0
    )
    return TimmConvNeXt(model)
