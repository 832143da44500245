"""The model of segmentation: images in, losses or logits out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import Backbone
from ..backbones.batching import FeatureMaps, FeatureModel, Inputs, are_features
from ..backbones.dense import join_targets, without_padding
from ..core.structures import IGNORE, ObjectTarget
from .heads.base import Criterion, SegmentationHead
from .heads.mask_queries import MaskQueryHead

_CLASS_ROWS = re.compile(r"head\.(classify(\.[34]|\.layer\d+)?|decode\.2|loss)\.(\w*weight|bias)$")


class Segmenter(FeatureModel):
    """A segmenter on a DINO backbone.

    ``forward(images, targets)``: images are a list of [3, H, W] tensors (uint8 or float in
    [0, 1], sizes may differ), one [B, 3, H, W], or what ``features`` says of them; targets:
    ``SegmentationTarget``. In training the answer is a dict of scalar losses (their sum is what is
    minimised), otherwise logits float32 [C, H, W] of each image, in its own pixels; the softmax
    over C is the probability of a class.
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

    def answers(self, batch: FeatureMaps) -> dict[str, Tensor]:
        """logits [B, C, h, w] at the head's own stride."""
        return {"logits": self.head(batch.maps)}

    def of_each(self, answers: dict[str, Tensor], batch: FeatureMaps) -> list[Any]:
        """Enlarged, without padding."""
        return without_padding(answers["logits"], batch)

    def class_rows(self, name: str, classes: Sequence[str], value: Tensor) -> list[str] | None:
        """See FeatureModel; heads of queries have a row more, for no object."""
        if not _CLASS_ROWS.match(name):
            return None
        return [*classes, *["(no object)"] * (len(value) - len(classes))]

    def forward(
        self, images: Inputs, targets: Sequence[Any] | None = None
    ) -> dict[str, Tensor] | list[Any]:
        if not self.training:
            return self.infer(images)
        targets = self.targets_of(images, targets)
        batch = self.feature_maps(images)
        masks = join_targets([target["mask"] for target in targets], batch.padded, IGNORE)
        return self.head.losses(batch.maps, masks, self.criterion)


class ObjectSegmenter(Segmenter):
    """A segmenter of objects, with a head of queries.

    Targets are ``ObjectTarget``. In eval mode it answers what the queries say of each image:
    ``masks``: logits float32 [Q, h, w] of the padded image; ``classes``: logits [Q, C + 1], the
    last that of no object; ``padded``: (H, W), which the masks cover. ``objects.instances_of`` and
    ``panoptic_of`` make objects of it.

    square: (H, W) that images are padded to with black in eval mode, as EoMT's own code does (ours
    pads what is needed, with the mean colour): for models that were trained there.
    """

    head: MaskQueryHead
    square: tuple[int, int] | None = None

    def forward(
        self, images: Inputs, targets: Sequence[ObjectTarget] | None = None
    ) -> dict[str, Tensor] | list[Any]:
        if not self.training:
            if self.square is not None and not are_features(images):
                images = [self._squared(image) for image in images]
            return self.infer(images)
        targets = self.targets_of(images, targets)
        batch = self.feature_maps(images)
        return self.head.object_losses(batch.maps, *join_objects(targets, batch.padded))

    def _squared(self, image: Tensor) -> Tensor:
        assert self.square is not None
        down, right = (max(0, a - b) for a, b in zip(self.square, image.shape[-2:]))
        return F.pad(image, (0, right, 0, down))

    def answers(self, batch: FeatureMaps) -> dict[str, Tensor]:
        """masks [B, Q, h, w] and classes [B, Q, C + 1], logits."""
        answer = self.head.queries(batch.maps)[-1]
        return {"masks": answer.masks.float(), "classes": answer.classes.float()}

    def of_each(self, answers: dict[str, Tensor], batch: FeatureMaps) -> list[Any]:
        """A dict each, see above."""
        pairs = zip(answers["masks"], answers["classes"])
        return [{"masks": m, "classes": c, "padded": batch.padded} for m, c in pairs]


def join_objects(targets: Sequence[ObjectTarget], padded: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Masks uint8 [B, T, H, W] of the padded batch's size (H, W) and classes int64 [B, T], filled
    up with -1; T: the most objects of an image, at least 1."""
    most = max(1, *(len(target["labels"]) for target in targets))
    labels = targets[0]["labels"]
    masks = targets[0]["masks"].new_zeros((len(targets), most, *padded))
    classes = torch.full((len(targets), most), -1, dtype=labels.dtype, device=labels.device)
    for row, target in enumerate(targets):
        count, height, width = target["masks"].shape
        masks[row, :count, :height, :width] = target["masks"]
        classes[row, :count] = target["labels"]
    return masks, classes
