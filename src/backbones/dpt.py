"""DPT's decoder (https://arxiv.org/abs/2103.13413): the maps of a backbone -> one fine map.

For whatever wants a value for each pixel (segmentation, depth).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ..core.structures import FeatureShape
from .dense import BatchNorm2d

LEVELS = 4


class ResidualUnit(nn.Module):
    """x + two 3x3 convolutions of it, each behind a ReLU (pre-activation)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(BatchNorm2d(channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[0](self.first(F.relu(x)))
        return x + self.norms[1](self.second(F.relu(y)))


def resampler(channels: int, factor: float) -> nn.Module:
    """[B, channels, h, w] -> the same at ``factor`` times the size: 4, 2, 1 or 0.5."""
    if factor > 1:
        return nn.ConvTranspose2d(channels, channels, int(factor), int(factor))
    if factor < 1:
        return nn.Conv2d(channels, channels, 3, round(1 / factor), 1)
    return nn.Identity()


class DPTDecoder(nn.Module):
    """{name: map} -> [B, channels, h, w] at stride 4 (3.5 with a patch of 14).

    A ViT's four taps, all at the stride of its patch, are brought to four, two, one and half
    times their size; a ConvNeXt's stages have such sizes already. One map alone serves as all
    four. From the coarsest on, each is refined, doubled and added to the next finer one.
    """

    def __init__(self, shapes: dict[str, FeatureShape], channels: int = 256) -> None:
        super().__init__()
        self.names = list(shapes)[-LEVELS:]
        self.names = [self.names[0]] * (LEVELS - len(self.names)) + self.names
        used = [shapes[name] for name in self.names]
        plain = len({shape.stride for shape in used}) == 1
        base = used[-1].stride if plain else used[-1].stride // 2
        wanted = [base / 4, base / 2, base, base * 2]
        if plain and base == 32:  # the last stage of a ConvNeXt alone
            wanted = [8, 16, 32, 64]
        self.stride = wanted[0]
        self.project = nn.ModuleList(nn.Conv2d(s.channels, channels, 1) for s in used)
        self.resample = nn.ModuleList(
            resampler(channels, shape.stride / stride) for shape, stride in zip(used, wanted)
        )
        self.smooth = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in used
        )
        self.skips = nn.ModuleList(ResidualUnit(channels) for _ in used[:-1])
        self.refine = nn.ModuleList(ResidualUnit(channels) for _ in used)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in used)

    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        levels = [
            smooth(resample(project(maps[name])))
            for name, project, resample, smooth in zip(
                self.names, self.project, self.resample, self.smooth
            )
        ]
        x = levels[-1]
        for i in range(LEVELS - 1, 0, -1):
            x = self.output[i](self.refine[i](x))
            finer = levels[i - 1]
            x = F.interpolate(x, size=finer.shape[-2:], mode="bilinear", align_corners=False)
            x = x + self.skips[i - 1](finer)
        return self.output[0](self.refine[0](x))
