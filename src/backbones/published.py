"""Figures that Meta published for frozen backbones, to stand beside measured ones.

Each was read in the source it names; what was not found there is None. The
protocols differ between sources, and from ours: they say what to expect, not what to reach.
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCES = {
    "v3 card": "DINOv3's model card, 'Results for ViT backbones' and '... ConvNeXt backbones' "
    "(LVD-1689M): https://github.com/facebookresearch/dinov3/blob/main/MODEL_CARD.md",
    "v2 readme": "DINOv2's README, table of pretrained models: "
    "https://github.com/facebookresearch/dinov2#pretrained-models",
    "v2 paper": "DINOv2's paper, section 'Dense Recognition Tasks': semantic segmentation, column "
    "lin.; depth estimation, NYUd, column lin. 1: https://arxiv.org/abs/2304.07193",
}


@dataclass(frozen=True)
class Figure:
    """A published number and the key of its source in SOURCES."""

    value: float
    source: str


@dataclass(frozen=True)
class Published:
    """imagenet_knn: top-1 in per cent; ade20k_miou: per cent; nyu_rmse: metres; None: not found
    in the sources."""

    imagenet_knn: Figure | None = None
    ade20k_miou: Figure | None = None
    nyu_rmse: Figure | None = None

    def figures(self) -> dict[str, Figure | None]:
        """By column, in the order of the table."""
        return {name: getattr(self, name) for name in TITLES}


TITLES = {
    "imagenet_knn": "ImageNet k-NN (%)",
    "ade20k_miou": "ADE20K mIoU (%)",
    "nyu_rmse": "NYU RMSE (m)",
}


def _v3(miou: float, rmse: float) -> Published:
    """The card gives no k-NN."""
    return Published(None, Figure(miou, "v3 card"), Figure(rmse, "v3 card"))


def _v2(knn: float, miou: float | None = None, rmse: float | None = None) -> Published:
    """The paper's dense figures are of the models without registers."""
    return Published(
        Figure(knn, "v2 readme"),
        None if miou is None else Figure(miou, "v2 paper"),
        None if rmse is None else Figure(rmse, "v2 paper"),
    )


PUBLISHED: dict[str, Published] = {
    "dinov3_vits16": _v3(47.0, 0.403),
    "dinov3_vits16plus": _v3(48.8, 0.399),
    "dinov3_vitb16": _v3(51.8, 0.373),
    "dinov3_vitl16": _v3(54.9, 0.352),
    "dinov3_vith16plus": _v3(54.8, 0.352),
    "dinov3_vit7b16": _v3(55.9, 0.309),
    "dinov3_convnext_tiny": _v3(42.7, 0.448),
    "dinov3_convnext_small": _v3(44.8, 0.432),
    "dinov3_convnext_base": _v3(46.3, 0.420),
    "dinov3_convnext_large": _v3(47.8, 0.403),
    "dinov2_vits14": _v2(79.0, 44.3, 0.449),
    "dinov2_vitb14": _v2(82.1, 47.3, 0.399),
    "dinov2_vitl14": _v2(83.5, 47.7, 0.384),
    "dinov2_vitg14": _v2(83.5, 49.0, 0.344),
    "dinov2_vits14_reg": _v2(79.1),
    "dinov2_vitb14_reg": _v2(82.0),
    "dinov2_vitl14_reg": _v2(83.8),
    "dinov2_vitg14_reg": _v2(83.7),
}


def published(name: str) -> Published:
    """The figures of a backbone; nothing but None where none are known."""
    return PUBLISHED.get(name, Published())
