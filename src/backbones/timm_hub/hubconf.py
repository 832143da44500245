"""A torch.hub repository on timm with the entry points of facebookresearch/dinov3 and dinov2.

    torch.hub.load("src/backbones/timm_hub", "dinov3_vits16", source="local", weights="file.pth")

Each entry point takes ``pretrained`` (True: the public weights, or the file that ``weights``
names; False: random weights) and ``weights`` (a path or file:// URL of a checkpoint of Meta's, or
of this hub's own). It imports nothing of the project around it.
"""

from __future__ import annotations

dependencies = ["torch", "timm"]

from dino_timm.architectures import ARCHITECTURES  # noqa: E402
from dino_timm.loading import load_file, load_published  # noqa: E402
from dino_timm.models import build  # noqa: E402


def _entry_point(name: str):
    def create(*, pretrained: bool = True, weights: str | None = None, **_ignored):
        model = build(name)
        if pretrained and weights is not None:
            load_file(model, str(weights))
        elif pretrained:
            load_published(model, name)
        return model

    create.__name__ = name
    create.__doc__ = f"{name} on timm: {ARCHITECTURES[name]}"
    return create


def timm_model(name: str, *, pretrained: bool = False, weights: str | None = None, **_ignored):
    """Any feature extractor of timm; weights: a file in place of timm's own."""
    from dino_timm.any_timm import any_timm

    return any_timm(name, pretrained, weights)


def hf_model(name: str, *, pretrained: bool = False, config: dict | None = None, **_ignored):
    """Any vision backbone of transformers, by name or folder; config: its configuration."""
    from dino_timm.any_hf import any_hf

    return any_hf(name, pretrained, config)


globals().update({name: _entry_point(name) for name in ARCHITECTURES})
