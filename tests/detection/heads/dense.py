"""Random outputs of a dense head, for comparing with torchvision's own rules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from src.backbones.batching import FeatureMaps

COUNTS = [16 * 16 * 3, 8 * 8 * 3]
SIZES = [(128, 128), (118, 124)]  # some boxes are clipped, none to nothing


class Body(nn.Module):
    """A backbone as torchvision's constructors want one; it is never run."""

    out_channels = 32


def random_boxes(count: int, seed: int = 0) -> Tensor:
    """Boxes [count, 4] within 128 x 128 pixels."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=generator) * 90 + 15
    half = torch.rand(count, 2, generator=generator) * 12 + 3
    return torch.cat([centre - half, centre + half], dim=1)


def random_outputs(columns: int, scale: float, seed: int = 1) -> Tensor:
    """[2, A, columns] normal values."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, sum(COUNTS), columns, generator=generator) * scale


def finished(detector, found: dict[str, torch.Tensor]) -> list:
    """Detections of images of SIZES, from the candidates that ``detect`` would have answered."""
    parts = detector.of_each(found, FeatureMaps({}, SIZES, SIZES[0]))
    return [detector.finish(one) for one in parts]


def same_detections(ours: list, theirs: list) -> None:
    """Equal boxes, scores and labels of every image, in order."""
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs):
        assert len(other["boxes"]) > 10
        for key in ("boxes", "scores", "labels"):
            torch.testing.assert_close(mine[key], other[key])
