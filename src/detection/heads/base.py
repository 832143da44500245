"""What all detectors have in common: backbone -> neck -> head, images in, losses or boxes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from src.backbones.base import Backbone
from src.backbones.pyramid import Pyramid, SingleLevel, build_pyramid
from src.core.errors import UserError
from src.core.structures import Detections, DetectionTarget
from src.detection.transform import InputTransform

FeatureExtractor = Literal["last", "multi"]


class Detector(nn.Module):
    """A detector on a DINO backbone.

    ``forward(images, targets)``: images are a list of [3, H, W] tensors (uint8 or float in
    [0, 1], sizes may differ) or one [B, 3, H, W]. In training the answer is a dict of scalar
    losses (their sum is what is minimised), otherwise one ``Detections`` an image, best first,
    boxes in pixels of the image handed in, labels from 1.

    Subclasses fill ``losses`` and ``detect``, in pixels of the resized images.
    """

    def __init__(
        self, backbone: Backbone, neck: Pyramid, num_classes: int, transform: InputTransform
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise UserError(
                f"a detector needs at least 2 classes, __background__ included; got {num_classes}"
            )
        self.backbone = backbone
        self.neck = neck
        self.num_classes = num_classes
        self.transform = transform

    def forward(
        self, images: Sequence[Tensor] | Tensor, targets: list[DetectionTarget] | None = None
    ) -> dict[str, Tensor] | list[Detections]:
        originals = [(image.shape[-2], image.shape[-1]) for image in images]
        if self.training and (targets is None or len(targets) != len(originals)):
            raise UserError(
                "a detector in training mode needs one target an image: "
                "model(images, targets); for predictions call model.eval() first"
            )
        batch, targets = self.transform.prepare(
            images, targets if self.training else None, self.backbone.normalise
        )
        maps = list(self.neck(self.backbone(batch.tensors)).values())
        if self.training:
            assert targets is not None
            return self.losses(maps, batch, targets)
        return self.transform.restore(self.detect(maps, batch), batch.image_sizes, originals)

    def losses(
        self, maps: list[Tensor], batch: ImageList, targets: list[DetectionTarget]
    ) -> dict[str, Tensor]:
        """Scalar losses of a batch."""
        raise NotImplementedError

    def detect(self, maps: list[Tensor], batch: ImageList) -> list[Detections]:
        """Detections of each image, inside it, in its resized pixels."""
        raise NotImplementedError


def build_neck(
    backbone: Backbone, feature_extractor: FeatureExtractor, channels: int, levels: int = 5
) -> Pyramid:
    """``multi``: the pyramid p3, p4, ...; ``last``: the last map alone. Both of ``channels``."""
    shapes = backbone.output_shape()
    if feature_extractor == "last":
        return SingleLevel(shapes, channels)
    return build_pyramid(shapes, channels, levels)
