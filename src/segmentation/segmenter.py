"""The model of segmentation: images in, losses or logits out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor

from ..backbones.base import Backbone
from ..backbones.batching import FeatureModel, Inputs
from ..backbones.dense import join_targets, without_padding
from ..core.structures import IGNORE, SegmentationTarget
from .heads.base import Criterion, SegmentationHead

_CLASS_ROWS = re.compile(r"head\.(classify(\.[34]|\.layer\d+)?|decode\.2|loss)\.(\w*weight|bias)$")


class Segmenter(FeatureModel):
    """A segmenter on a DINO backbone.

    ``forward(images, targets)``: images are a list of [3, H, W] tensors (uint8 or float in
    [0, 1], sizes may differ), one [B, 3, H, W], or what ``features`` says of them. In training
    the answer is a dict of scalar losses (their sum is what is minimised), otherwise logits float32
    [C, H, W] of each image, in its own pixels; the softmax over C is the probability of a class.
    """

    def __init__(
        self, backbone: Backbone, head: SegmentationHead, num_classes: int, criterion: Criterion
    ) -> None:
        super().__init__(backbone)
        self.head = head
        self.num_classes = num_classes
        self.criterion = criterion

    def read(self, batch: Tensor) -> dict[str, Tensor]:
        """What the head takes of the backbone."""
        return self.head.read(self.backbone, batch)

    def class_rows(self, name: str, classes: Sequence[str], value: Tensor) -> list[str] | None:
        """See FeatureModel; heads of queries have a row more, for no object."""
        if not _CLASS_ROWS.match(name):
            return None
        return [*classes, *["(no object)"] * (len(value) - len(classes))]

    def forward(
        self, images: Inputs, targets: Sequence[SegmentationTarget] | None = None
    ) -> dict[str, Tensor] | list[Tensor]:
        if not self.training:
            return self.each(images, lambda part: without_padding(self.head(part.maps), part))
        targets = self.targets_of(images, targets)
        batch = self.feature_maps(images)
        masks = join_targets([target["mask"] for target in targets], batch.padded, IGNORE)
        return self.head.losses(batch.maps, masks, self.criterion)
