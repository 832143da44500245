"""Figures that the papers give for frozen backbones, to stand beside measured ones."""

from __future__ import annotations

from dataclasses import dataclass

DINOV3 = "DINOv3, https://arxiv.org/abs/2508.10104"
DINOV2 = "DINOv2, https://github.com/facebookresearch/dinov2 (models without registers)"
SOURCES = {
    "imagenet_knn": DINOV2,
    "ade20k_miou": f"{DINOV3} (linear probe; its figures for DINOv2, too)",
    "nyu_rmse": f"{DINOV3} (linear probe; its figures for DINOv2, too)",
}


@dataclass(frozen=True)
class Published:
    """imagenet_knn: top-1 in per cent; ade20k_miou: per cent; nyu_rmse: metres; None: not given."""

    imagenet_knn: float | None = None
    ade20k_miou: float | None = None
    nyu_rmse: float | None = None


_V3 = {
    "vits16": (47.0, 0.403),
    "vits16plus": (48.8, 0.399),
    "vitb16": (51.8, 0.373),
    "vitl16": (54.9, 0.352),
    "vith16plus": (54.8, 0.352),
    "vit7b16": (55.9, 0.309),
    "convnext_tiny": (42.7, 0.448),
    "convnext_small": (44.8, 0.432),
    "convnext_base": (46.3, 0.420),
    "convnext_large": (47.8, 0.403),
}
_V2 = {
    "s": (79.0, 45.5, 0.446),
    "b": (82.1, 48.4, 0.416),
    "l": (83.5, 48.8, 0.394),
    "g": (83.5, 49.5, 0.372),
}
PUBLISHED: dict[str, Published] = {
    **{f"dinov3_{size}": Published(None, *figures) for size, figures in _V3.items()},
    **{f"dinov2_vit{size}14": Published(*figures) for size, figures in _V2.items()},
}


def published(name: str) -> Published:
    """The figures of a backbone; nothing but None where none are known."""
    return PUBLISHED.get(name, Published())
