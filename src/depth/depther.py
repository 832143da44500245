"""The model of depth: images in, losses or metres out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..backbones.base import Backbone
from ..backbones.batching import FeatureMaps, FeatureModel, Inputs
from ..backbones.dense import join_targets, upsample, without_padding
from ..core.structures import DepthTarget
from .heads.base import DepthHead
from .losses import DepthLoss


class Depther(FeatureModel):
    """Depth on a DINO backbone.

    ``forward(images, targets)``: images are a list of [3, H, W] tensors (uint8 or float in
    [0, 1], sizes may differ), one [B, 3, H, W], or what ``features`` says of them. In training
    the answer is a dict of scalar losses, otherwise float32 [1, H, W] of each image: metres, in
    its own pixels.
    """

    def __init__(self, backbone: Backbone, head: DepthHead, criterion: DepthLoss) -> None:
        super().__init__(backbone)
        self.head, self.criterion = head, criterion

    def read(self, batch: Tensor) -> dict[str, Tensor]:
        """All maps as the head wants them: with the class token behind each cell, and the norm."""
        return self.backbone(batch, class_token=self.head.class_token, norm=self.head.norm)

    def answers(self, batch: FeatureMaps) -> dict[str, Tensor]:
        """metres [B, 1, h, w] at the head's own stride."""
        return {"metres": self.head(batch.maps)}

    def of_each(self, answers: dict[str, Tensor], batch: FeatureMaps) -> list[Tensor]:
        """Enlarged, without padding."""
        return without_padding(answers["metres"], batch)

    def forward(
        self, images: Inputs, targets: Sequence[DepthTarget] | None = None
    ) -> dict[str, Tensor] | list[Tensor]:
        if not self.training:
            return self.infer(images)
        targets = self.targets_of(images, targets)
        batch = self.feature_maps(images)
        truth = join_targets([target["depth"] for target in targets], batch.padded, 0)
        return self.criterion(upsample(self.head(batch.maps), truth.shape[-2:]), truth)


class FlipAveraged(nn.Module):
    """A model of depth whose answer is the mean of two looks: as it is, and mirrored."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        plain = self.model(images)
        mirrored = self.model([image.flip(-1) for image in images])
        return [(one + other.flip(-1)) / 2 for one, other in zip(plain, mirrored)]
