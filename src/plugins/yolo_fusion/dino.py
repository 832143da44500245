"""A frozen backbone that is absent from the network that reads it.

As a part of the network ultralytics would train it (it sets requires_grad again), average it,
round it to fp16 and save it with every checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ...backbones.base import Backbone
from ...backbones.build import build_backbone
from ...backbones.catalog import CATALOG
from ...backbones.weights import find_weights
from ...core.errors import UserError
from ...core.paths import weights_folder
from ...engine.checkpoint import fingerprint
from ...engine.precision import arithmetic, lower_weights


class _Loaded(NamedTuple):
    backbone: Backbone
    fingerprint: str
    dtype: torch.dtype


_LOADED: dict[tuple[str, str, str], _Loaded] = {}  # by name, weights and device: once a process


def lasting_name(name: str, weights: str) -> str:
    """``weights`` as another process in another folder finds them: a name in the weights folder,
    else the whole path. UserError for a file that is not there."""
    if weights in ("none", "pretrained"):
        return weights
    path, folder = find_weights(weights, CATALOG[name]), weights_folder(CATALOG[name].family)
    return weights if path == folder / weights else str(path.resolve())


class FrozenDino:
    """Which backbone it is: name, weights ('none': random ones of a fixed seed) and fingerprint.

    A copy is itself; a pickle holds these three. The weights are loaded when they are first read,
    once a process and device: float32, or bfloat16 where a CUDA device has it.
    """

    def __init__(self, name: str, weights: str, expected: str | None = None) -> None:
        self.name, self.weights, self.expected = name, weights, expected

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenDino:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDino, (self.name, self.weights, self.expected)

    def __repr__(self) -> str:
        return f"{self.name} ({self.weights})"

    def load(self, device: torch.device) -> _Loaded:
        """The backbone on ``device``. UserError when its weights are missing or others than those
        the network was trained with."""
        key = (self.name, self.weights, str(device))
        if key not in _LOADED:
            _LOADED[key] = self._load(device)
        loaded = _LOADED[key]
        self.expected = self.expected or loaded.fingerprint
        if loaded.fingerprint != self.expected:
            raise UserError(
                f"this network was trained with other weights of {self.name}: fingerprint "
                f"{self.expected[:12]}, and '{self.weights}' has {loaded.fingerprint[:12]}; put "
                f"the file it was trained with into {weights_folder(CATALOG[self.name].family)}/"
            )
        return loaded

    def _load(self, device: torch.device) -> _Loaded:
        weights = self.weights
        if weights not in ("none", "pretrained") and not Path(weights).is_file():
            weights = Path(weights).name  # trained on another machine: looked for by its name
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            backbone = build_backbone(self.name, weights=weights, hub="bundled").eval()
            digest = fingerprint(backbone.hub_model)
            on_cuda = device.type == "cuda" and torch.cuda.is_bf16_supported()
            dtype = torch.bfloat16 if on_cuda else torch.float32
            lower_weights(backbone.to(device), dtype)
        return _Loaded(backbone, digest, dtype)

    def read(self, images: Tensor, context: str) -> list[Tensor]:
        """Float images [B, 3, H, W] in [0, 1] -> float32 maps [B, D, h, w], without a gradient.

        global: the class token (1x1); patch: the last layer's patches; multi: those of a middle
        layer (a ConvNeXt's stage of stride 8) and the last; tokens: patches and class token.
        Where the patch (DINOv2: 14) does not divide a side, the image is resized to the next
        multiple, so that the patches cover it evenly.
        """
        backbone, _, dtype = self.load(images.device)
        divisor = backbone.size_divisor
        sides = [-(-int(side) // divisor) * divisor for side in images.shape[-2:]]
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            x = images.float()
            if sides != list(images.shape[-2:]):
                x = F.interpolate(x, sides, mode="bilinear", align_corners=False)
            with arithmetic(dtype, images.device):
                x = backbone.normalise(x)
                if context == "multi":
                    maps = list(backbone(x).values())
                    found = [maps[1], maps[-1]]
                else:
                    ((patches, token),) = backbone.tokens(x)
                    token = token[..., None, None]
                    kinds = {"global": [token], "patch": [patches], "tokens": [patches, token]}
                    found = kinds[context]
        return [one.float() for one in found]

    def channels(self, context: str) -> list[int]:
        """D of each map of ``read``."""
        dims = CATALOG[self.name].dims
        return {"multi": [dims[min(1, len(dims) - 1)], dims[-1]], "tokens": [dims[-1]] * 2}.get(
            context, [dims[-1]]
        )
