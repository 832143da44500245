"""DINOv3 and DINOv2 backbones at work: ``dino_stack`` where installed, ``src`` in a clone.

import dino_stack
result = dino_stack.load("best_model.pth").predict("street.jpg")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Features, FrozenBackbone, Model, backbone, load, train

__all__ = ["Features", "FrozenBackbone", "Model", "backbone", "load", "train"]


def __getattr__(name: str) -> Any:
    """The names above, imported when they are asked for: ``import dino_stack`` stays light."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api

    return getattr(api, name)
