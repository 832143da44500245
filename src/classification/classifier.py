"""The model of classification: images in, losses or logits out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..backbones.base import Backbone
from ..backbones.batching import (
    FeatureMaps,
    FeatureModel,
    ImageFeatures,
    Inputs,
    are_features,
    equal_rows,
)
from ..engine.host import upload
from .heads.base import ClassificationHead
from .losses import LabelLoss


class Classifier(FeatureModel):
    """A classifier on a DINO backbone.

    ``forward(inputs, targets)``: inputs are a list of [3, H, W] tensors (uint8 or float in [0, 1],
    sizes may differ), one [B, 3, H, W], or the features of each image as ``features`` gives them.
    In training the answer is a dict of scalar losses, otherwise logits float32 [B, C]; their
    softmax (multi-label: sigmoid) is the probability of a class.

    An image's answer does not depend on the others of its batch: only images of one padded size
    go through the backbone together.
    """

    def __init__(self, backbone: Backbone, head: ClassificationHead, criterion: LabelLoss) -> None:
        super().__init__(backbone)
        self.head, self.criterion = head, criterion

    def read(self, batch: Tensor) -> dict[str, Tensor]:
        """What the head gathers of the tokens."""
        return self.head.gather(self.backbone.tokens(batch, self.head.layers))

    def logits(self, features: Sequence[ImageFeatures]) -> Tensor:
        """float32 [B, C] of what ``features`` gave."""
        values = [one.values for one in features]
        order, parts = [], []
        for rows in equal_rows([tuple(v.shape for v in one.values()) for one in values]):
            names = values[rows[0]]
            stacked = {name: torch.stack([values[row][name] for row in rows]) for name in names}
            parts.append(self.head(stacked).float())
            order += rows
        logits = torch.cat(parts)
        if order == sorted(order):
            return logits
        places = sorted(range(len(order)), key=order.__getitem__)
        return logits[upload(places, logits, torch.int64)]

    def answers(self, batch: FeatureMaps) -> dict[str, Tensor]:
        """logits float32 [B, C]."""
        return {"logits": self.head(batch.maps).float()}

    def of_each(self, answers: dict[str, Tensor], batch: FeatureMaps) -> Sequence[Tensor]:
        """A row each."""
        return answers["logits"].unbind()

    def class_rows(self, name: str, classes: Sequence[str], value: Tensor) -> list[str] | None:
        """See FeatureModel."""
        return list(classes) if name in ("head.classify.weight", "head.classify.bias") else None

    def forward(
        self, inputs: Inputs, targets: Sequence[Mapping[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | Tensor:
        if not self.training:
            return torch.stack(self.infer(inputs))
        logits = self.logits(inputs if are_features(inputs) else self.features(inputs))
        return self.criterion(logits, self.targets_of(inputs, targets))
