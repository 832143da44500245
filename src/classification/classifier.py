"""The model of classification: images in, losses or logits out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from src.backbones.base import Backbone
from src.backbones.batching import join_images
from src.classification.heads.base import ClassificationHead, Features
from src.classification.losses import LabelLoss
from src.core.errors import UserError


class Classifier(nn.Module):
    """A classifier on a DINO backbone.

    ``forward(inputs, targets)``: inputs are a list of [3, H, W] tensors (uint8 or float in [0, 1],
    sizes may differ), one [B, 3, H, W], or the features of each image as ``features`` gives them.
    In training the answer is a dict of scalar losses, otherwise logits float32 [B, C]; their
    softmax (multi-label: sigmoid) is the probability of a class.

    An image's answer does not depend on the others of its batch: only images of one padded size
    go through the backbone together.
    """

    def __init__(self, backbone: Backbone, head: ClassificationHead, criterion: LabelLoss) -> None:
        super().__init__()
        self.backbone, self.head, self.criterion = backbone, head, criterion

    def features(self, images: Sequence[Tensor] | Tensor) -> list[Features]:
        """What the head reads of each image; nothing in it is trained with a frozen backbone."""
        divisor = self.backbone.size_divisor
        padded = [tuple(-(-side // divisor) for side in image.shape[-2:]) for image in images]
        found: list[Features] = [{} for _ in padded]
        for rows in _groups(padded):
            whole = isinstance(images, Tensor) or len(rows) == len(padded)
            part = images if whole else [images[row] for row in rows]
            batch, _ = join_images(part, self.backbone.normalise, divisor)
            gathered = self.head.gather(self.backbone.tokens(batch, self.head.layers))
            for name, values in gathered.items():
                for row, value in zip(rows, values):
                    found[row][name] = value
        return found

    def logits(self, features: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """float32 [B, C] of what ``features`` gave."""
        shapes = [tuple(tuple(v.shape) for v in one.values()) for one in features]
        order, parts = [], []
        for rows in _groups(shapes):
            names = features[rows[0]]
            stacked = {name: torch.stack([features[row][name] for row in rows]) for name in names}
            parts.append(self.head(stacked).float())
            order += rows
        logits = torch.cat(parts)
        if order == sorted(order):
            return logits
        return logits[torch.tensor(order, device=logits.device).argsort()]

    def forward(
        self,
        inputs: Sequence[Tensor] | Tensor | Sequence[Mapping[str, Tensor]],
        targets: Sequence[Mapping[str, Tensor]] | None = None,
    ) -> dict[str, Tensor] | Tensor:
        taken: Any = inputs
        if isinstance(inputs, Tensor) or not isinstance(inputs[0], Mapping):
            taken = self.features(taken)
        logits = self.logits(taken)
        if not self.training:
            return logits
        if targets is None or len(targets) != len(logits):
            raise UserError(
                "a classifier in training mode needs one target an image: "
                "model(images, targets); for predictions call model.eval() first"
            )
        return self.criterion(logits, targets)


def _groups(kinds: Sequence[Any]) -> list[list[int]]:
    """The places of equal items, in the order of their first."""
    groups: dict[Any, list[int]] = {}
    for row, kind in enumerate(kinds):
        groups.setdefault(kind, []).append(row)
    return list(groups.values())
