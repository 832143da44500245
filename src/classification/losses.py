"""The losses of classification, and batches of mixed images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Target = Mapping[str, Tensor]  # {"label": int64 []} or {"labels": float32 [C]}


class LabelLoss(nn.Module):
    """Cross-entropy with label smoothing; for multi-label data a binary one for each class.

    Targets are {"label": int64 []} each, or {"labels": float32 [C]}: shares of the classes (a
    mixed image), in multi-label data 0 or 1 for each.
    """

    def __init__(self, multi_label: bool = False, smoothing: float = 0.0) -> None:
        super().__init__()
        self.multi_label, self.smoothing = multi_label, smoothing

    def forward(self, logits: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        truth = stack_targets(targets)
        if self.multi_label:
            truth = truth * (1 - self.smoothing) + self.smoothing / 2
            return {"bce": F.binary_cross_entropy_with_logits(logits, truth)}
        return {"ce": F.cross_entropy(logits, truth, label_smoothing=self.smoothing)}

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits [..., C] -> float32 [..., C] in [0, 1]."""
        return logits.float().sigmoid() if self.multi_label else logits.float().softmax(dim=-1)


def stack_targets(targets: Sequence[Target]) -> Tensor:
    """int64 [B], or float32 [B, C]."""
    name = "label" if "label" in targets[0] else "labels"
    return torch.stack([target[name] for target in targets])


def mix_batch(
    images: Sequence[Tensor] | Tensor,
    targets: Sequence[Target],
    classes: int,
    mixup: float,
    cutmix: float,
) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Each image mixed with the one before it, and so their targets.

    images: uint8 [3, h, w] each; one of another shape is stretched to that of the image it goes
    into. mixup (https://arxiv.org/abs/1710.09412) blends; cutmix
    (https://arxiv.org/abs/1905.04899) pastes a rectangle; both figures are the alpha of the Beta
    distribution, 0 = not at all; with both, one of them is drawn for the batch. Random choices
    come from torch's generator.
    """
    cut = cutmix > 0 and (mixup == 0 or float(torch.rand(())) < 0.5)
    alpha = torch.tensor(cutmix if cut else mixup)
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    middle = torch.rand(2).tolist()
    truth = stack_targets(targets)
    if truth.ndim == 1:
        truth = F.one_hot(truth, classes).float()
    mixed, found = [], []
    for row, image in enumerate(images):
        other = _stretched(images[row - 1], image)
        if cut:
            image, kept = _pasted(image, other, share, middle)
        else:
            blend = image.float() * share + other.float() * (1 - share)
            blend = blend if image.is_floating_point() else blend.round()
            image, kept = blend.to(image.dtype), share
        mixed.append(image)
        found.append({"labels": truth[row] * kept + truth[row - 1] * (1 - kept)})
    return mixed, found


def _stretched(image: Tensor, like: Tensor) -> Tensor:
    """uint8 [3, h, w] in the size of another."""
    size = like.shape[-2:]
    if image.shape[-2:] == size:
        return image
    large = F.interpolate(image[None].float(), size, mode="bilinear", antialias=True)
    return large[0].round().clamp(0, 255).to(image.dtype)


def _pasted(
    image: Tensor, other: Tensor, share: float, middle: Sequence[float]
) -> tuple[Tensor, float]:
    """The image with a rectangle of the other; the share of it that stays its own."""
    height, width = image.shape[-2:]
    side = (1 - share) ** 0.5
    top, bottom = _span(middle[0], side, height)
    left, right = _span(middle[1], side, width)
    image = image.clone()
    image[..., top:bottom, left:right] = other[..., top:bottom, left:right]
    return image, 1 - (bottom - top) * (right - left) / (height * width)


def _span(middle: float, side: float, length: int) -> tuple[int, int]:
    """First and last + 1 of ``side * length`` pixels around ``middle * length``, clipped."""
    centre, half = middle * length, side * length / 2
    return max(0, round(centre - half)), min(length, round(centre + half))
