"""Feature pyramids: the maps of a backbone -> maps of one width at strides 8, 16, 32, 64, 128.

A plain ViT (all taps at one stride) gets ViTDet's simple feature pyramid
(https://arxiv.org/abs/2203.16527), a hierarchical backbone a top-down FPN
(https://arxiv.org/abs/1612.03144). The 3x3 convolutions are depthwise separable, as in
EfficientDet's BiFPN (https://arxiv.org/abs/1911.09070): dense ones at stride 8 would cost more
than the rest of the detector.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional as F

from ..core.structures import FeatureShape


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of [B, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def smooth(channels: int, stride: int = 1) -> nn.Sequential:
    """Depthwise 3x3, pointwise 1x1, LayerNorm; with stride 2 the result is ceil(size / 2)."""
    layers = nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        LayerNorm2d(channels),
    )
    _init(layers)
    return layers


def _init(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _one_cell(x: Tensor) -> Tensor:
    """A map of one cell with the strides of a plain tensor. With those of channels_last torch's CPU
    (2.14) leaves the gradient of a depthwise kernel in bf16 uninitialised."""
    return x.flatten(1)[..., None, None] if x.shape[-2:] == (1, 1) else x


class Pyramid(nn.Module):
    """Maps {name: [B, C, h, w]} -> OrderedDict {"p3": [B, channels, ceil(H / 8), ...], ...}.

    reads: names of the maps that it looks at, shallow to deep.
    """

    def __init__(self, channels: int, strides: dict[str, int], reads: Iterable[str]) -> None:
        super().__init__()
        self.channels, self.reads = channels, list(reads)
        self._strides = strides

    def output_shape(self) -> dict[str, FeatureShape]:
        """Channels and stride of every level, finest first."""
        return {name: FeatureShape(self.channels, s) for name, s in self._strides.items()}


class SingleLevel(Pyramid):
    """One level: the last map alone, brought to ``channels`` (1x1 convolution, LayerNorm)."""

    def __init__(self, shapes: dict[str, FeatureShape], channels: int) -> None:
        name, shape = list(shapes.items())[-1]
        super().__init__(channels, {f"p{round(math.log2(shape.stride))}": shape.stride}, [name])
        self.project = nn.Sequential(
            nn.Conv2d(shape.channels, channels, 1, bias=False), LayerNorm2d(channels)
        )
        _init(self.project)

    def forward(self, maps: dict[str, Tensor]) -> OrderedDict[str, Tensor]:
        return OrderedDict([(next(iter(self._strides)), self.project(maps[self.reads[0]]))])


class SimplePyramid(Pyramid):
    """ViTDet's pyramid: every level is made from one map, the last.

    When there are several taps of the same stride, the earlier ones are added to the last
    through 1x1 convolutions that start at zero: it begins as ViTDet's, and a frozen backbone's
    finer features can come in (they are not there in its last map, and it cannot learn them).
    """

    def __init__(self, shapes: dict[str, FeatureShape], channels: int, levels: int) -> None:
        stride = next(iter(shapes.values())).stride
        doublings = max(0, round(math.log2(stride / 8)))
        finest = stride // 2**doublings
        super().__init__(channels, {f"p{3 + i}": finest * 2**i for i in range(levels)}, shapes)
        *earlier, last = (shape.channels for shape in shapes.values())
        self.reduce = nn.Conv2d(last, channels, 1)
        _init(self.reduce)
        taps = [nn.Conv2d(c, channels, 1, bias=False) for c in earlier]
        for tap in taps:
            nn.init.zeros_(tap.weight)
        self.taps = nn.ModuleList(taps)
        self.up = nn.ModuleList()
        for _ in range(doublings):
            deconvolution = nn.ConvTranspose2d(channels, channels, 2, 2)
            _init(deconvolution)
            self.up.append(nn.Sequential(deconvolution, LayerNorm2d(channels), nn.GELU()))
        near = min(levels, doublings + 2)
        self.output = nn.ModuleList(smooth(channels) for _ in range(near))
        self.down = nn.ModuleList(smooth(channels, stride=2) for _ in range(levels - near))

    def forward(self, maps: dict[str, Tensor]) -> OrderedDict[str, Tensor]:
        *earlier, last = maps.values()
        x = self.reduce(last)
        for tap, layer in zip(earlier, self.taps, strict=True):
            x = x + layer(tap)
        scales = [x]
        for up in self.up:
            scales.insert(0, up(scales[0]))
        if len(self.output) > len(scales):
            scales.append(F.max_pool2d(x, 2, ceil_mode=True))
        levels = [layer(scale) for layer, scale in zip(self.output, scales)]
        for down in self.down:
            levels.append(down(_one_cell(levels[-1])))
        return OrderedDict(zip(self._strides, levels))


class FeaturePyramid(Pyramid):
    """FPN on the stages at strides 8, 16 and 32; coarser levels by stride 2 from the last."""

    def __init__(self, shapes: dict[str, FeatureShape], channels: int, levels: int) -> None:
        used = {name: shape for name, shape in shapes.items() if shape.stride >= 8}
        assert len(used) > 1, f"no stages at strides 8 and up in {shapes}"
        finest = next(iter(used.values())).stride
        super().__init__(channels, {f"p{3 + i}": finest * 2**i for i in range(levels)}, used)
        self.lateral = nn.ModuleList(nn.Conv2d(s.channels, channels, 1) for s in used.values())
        _init(self.lateral)
        self.output = nn.ModuleList(smooth(channels) for _ in self.reads[:levels])
        extra = max(0, levels - len(self.reads))
        self.down = nn.ModuleList(smooth(channels, stride=2) for _ in range(extra))

    def forward(self, maps: dict[str, Tensor]) -> OrderedDict[str, Tensor]:
        laterals = [layer(maps[name]) for name, layer in zip(self.reads, self.lateral)]
        for i in range(len(laterals) - 2, -1, -1):
            above = F.interpolate(laterals[i + 1], size=laterals[i].shape[-2:], mode="nearest")
            laterals[i] = laterals[i] + above
        levels = [layer(lateral) for layer, lateral in zip(self.output, laterals)]
        for down in self.down:
            levels.append(down(_one_cell(levels[-1])))
        return OrderedDict(zip(self._strides, levels))


def build_pyramid(
    shapes: dict[str, FeatureShape], channels: int = 256, levels: int = 5
) -> SimplePyramid | FeaturePyramid:
    """The pyramid that suits the maps: levels p3, p4, ... at strides 8, 16, ...

    shapes: ``Backbone.output_shape()``, shallow to deep. Maps of one stride give ViTDet's
    pyramid (with a patch of 14 the strides are 7, 14, 28, ...), several strides an FPN.
    """
    assert levels >= 1 and channels >= 1
    if len({shape.stride for shape in shapes.values()}) == 1:
        return SimplePyramid(shapes, channels, levels)
    return FeaturePyramid(shapes, channels, levels)
