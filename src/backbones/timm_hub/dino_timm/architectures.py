"""The table of architectures: numbers only, nothing is built here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """What tells one architecture from another.

    published: timm's name of the public weights, None where Meta published none.
    """

    kind: str  # "dinov3_vit", "dinov2_vit", "deimv2_vit" or "convnext"
    dims: tuple[int, ...]  # one number for a ViT, one a stage for a ConvNeXt
    depths: tuple[int, ...]
    heads: int = 0
    swiglu: bool = False
    registers: int = 4
    published: str | None = None
    layer_scale: float = 1e-5
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    align: int = 8


def _v3(dim: int, depth: int, heads: int, published: str | None, **more) -> Architecture:
    return Architecture("dinov3_vit", (dim,), (depth,), heads, published=published, **more)


def _v2(dim: int, depth: int, heads: int, size: str, registers: int, **more) -> Architecture:
    name = f"vit_{size}_patch14_{'reg4_' if registers else ''}dinov2.lvd142m"
    return Architecture(
        "dinov2_vit", (dim,), (depth,), heads, registers=registers, published=name, **more
    )


def _next(dims: tuple[int, ...], depths: tuple[int, ...], published: str | None, scale=1e-6):
    return Architecture("convnext", dims, depths, published=published, layer_scale=scale)


_TAG = "lvd1689m"
ARCHITECTURES: dict[str, Architecture] = {
    "dinov3_vits16": _v3(384, 12, 6, f"vit_small_patch16_dinov3_qkvb.{_TAG}"),
    "dinov3_vits16plus": _v3(384, 12, 6, f"vit_small_plus_patch16_dinov3_qkvb.{_TAG}", swiglu=True),
    "dinov3_vitb16": _v3(768, 12, 12, f"vit_base_patch16_dinov3_qkvb.{_TAG}"),
    "dinov3_vitl16": _v3(1024, 24, 16, f"vit_large_patch16_dinov3_qkvb.{_TAG}"),
    "dinov3_vitl16plus": _v3(1024, 24, 16, None, swiglu=True),
    "dinov3_vith16plus": _v3(
        1280, 32, 20, f"vit_huge_plus_patch16_dinov3_qkvb.{_TAG}", swiglu=True
    ),
    "dinov3_vit7b16": _v3(
        4096, 40, 32, f"vit_7b_patch16_dinov3.{_TAG}", swiglu=True, mlp_ratio=2.0, qkv_bias=False,
        align=64,
    ),
    "dinov3_convnext_tiny": _next(
        (96, 192, 384, 768), (3, 3, 9, 3), f"convnext_tiny.dinov3_{_TAG}"
    ),
    "dinov3_convnext_small": _next(
        (96, 192, 384, 768), (3, 3, 27, 3), f"convnext_small.dinov3_{_TAG}"
    ),
    "dinov3_convnext_base": _next(
        (128, 256, 512, 1024), (3, 3, 27, 3), f"convnext_base.dinov3_{_TAG}"
    ),
    "dinov3_convnext_large": _next(
        (192, 384, 768, 1536), (3, 3, 27, 3), f"convnext_large.dinov3_{_TAG}"
    ),
    **{
        f"dinov2_vit{letter}14{'_reg' if registers else ''}": _v2(
            dim, depth, heads, size, registers, swiglu=letter == "g", layer_scale=1.0
        )
        for registers in (0, 4)
        for letter, size, dim, depth, heads in (
            ("s", "small", 384, 12, 6),
            ("b", "base", 768, 12, 12),
            ("l", "large", 1024, 24, 16),
            ("g", "giant", 1536, 40, 24),
        )
    },
    # Small members of the families for demonstrations and tests: Meta published no weights of
    # them. Layer scale starts at 1, so that they learn from random weights.
    "dinov3_vitt16": _v3(192, 12, 3, None, layer_scale=1.0),
    "dinov3_convnext_atto": _next((40, 80, 160, 320), (2, 2, 6, 2), None, scale=1.0),
    # DEIMv2's, distilled from DINOv3-S (https://arxiv.org/abs/2509.20787, section 3.1).
    "deimv2_vitt16": Architecture("deimv2_vit", (192,), (12,), 3, registers=0),
    "deimv2_vittplus16": Architecture("deimv2_vit", (256,), (12,), 4, registers=0),
}  # fmt: skip
