"""The model of segmentation: images in, losses or logits out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from src.backbones.base import Backbone
from src.backbones.batching import join_images
from src.backbones.dense import join_targets, without_padding
from src.core.errors import UserError
from src.core.structures import IGNORE, SegmentationTarget
from src.segmentation.heads.base import Criterion, SegmentationHead


class Segmenter(nn.Module):
    """A segmenter on a DINO backbone.

    ``forward(images, targets)``: images are a list of [3, H, W] tensors (uint8 or float in
    [0, 1], sizes may differ) or one [B, 3, H, W]. In training the answer is a dict of scalar
    losses (their sum is what is minimised), otherwise logits float32 [C, H, W] of each image, in
    its own pixels; the softmax over C is the probability of a class.
    """

    def __init__(
        self, backbone: Backbone, head: SegmentationHead, num_classes: int, criterion: Criterion
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.num_classes = num_classes
        self.criterion = criterion

    def forward(
        self,
        images: Sequence[Tensor] | Tensor,
        targets: Sequence[SegmentationTarget] | None = None,
    ) -> dict[str, Tensor] | list[Tensor]:
        batch, sizes = join_images(images, self.backbone.normalise, self.backbone.size_divisor)
        maps = self.backbone(batch)
        if not self.training:
            return without_padding(self.head(maps), sizes, batch.shape[-2:])
        if targets is None or len(targets) != len(sizes):
            raise UserError(
                "a segmenter in training mode needs one target an image: "
                "model(images, targets); for predictions call model.eval() first"
            )
        masks = join_targets([target["mask"] for target in targets], batch, IGNORE)
        return self.head.losses(maps, masks, self.criterion)
