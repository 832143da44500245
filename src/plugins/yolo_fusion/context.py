"""The row of a YOLO graph that answers DINO's context of the raw image."""

from __future__ import annotations

import operator
import pydoc
from typing import Any

import torch
import ultralytics.nn.tasks
from torch import Tensor, nn
from torch.nn import functional as F

from .dino import FrozenDino


class DinoContext(nn.Module):
    """Images [B, 3, H, W] in [0, 1] -> maps [B, channels, ceil(H/stride), ceil(W/stride)].

    settings: name and weights of the backbone; context (see FrozenDino.read; a class token is the
    same everywhere); channels and strides of the maps; control: none, zero (the context is 0), or
    shuffle (each image has its neighbour's). One dictionary, because ultralytics would read
    strings of a row as Python.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.context, self.control = settings["context"], settings["control"]
        self.strides = list(settings["strides"])
        self.dino = FrozenDino(settings["name"], settings["weights"])
        pairs = zip(self.dino.channels(self.context), settings["channels"])
        self.project = nn.ModuleList(nn.Conv2d(dim, out, 1) for dim, out in pairs)

    def forward(self, images: Tensor) -> list[Tensor]:
        """See the class."""
        maps = self.dino.read(images, self.context)
        if self.control == "zero":
            maps = [torch.zeros_like(one) for one in maps]
        elif self.control == "shuffle":
            maps = [one.roll(1, 0) for one in maps]
        return [self._fit(i, one, images) for i, one in enumerate(maps)]

    def _fit(self, index: int, values: Tensor, images: Tensor) -> Tensor:
        project: Any = self.project[index]
        size = [-(-int(side) // self.strides[index]) for side in images.shape[-2:]]
        dtype = project.weight.dtype
        if self.context == "global":
            return project(values.to(dtype)).expand(-1, -1, *size)
        resized = F.interpolate(values, size, mode="bilinear", align_corners=False)
        return project(resized.to(dtype))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # Where this project cannot be imported, ultralytics would install a foreign package named
        # after the missing module; so it is looked up in a way that fails by another error, whose
        # text says what to do: "'NoneType' object has no attribute 'install_dino_stack_to_...'".
        make = operator.methodcaller(install_dino_stack_to_open_this_model.__name__)
        return make, (_Located(),), self.__dict__


class _Located:
    """Pickled, it is this module, or None where there is none."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pydoc.locate, (__name__,)


def install_dino_stack_to_open_this_model() -> DinoContext:
    """An empty DinoContext, to be filled by a pickle."""
    return DinoContext.__new__(DinoContext)


# Where the rows of a graph are looked up.
ultralytics.nn.tasks.DinoContext = DinoContext  # type: ignore[attr-defined]
