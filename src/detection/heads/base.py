"""What all detectors have in common: backbone -> neck -> head, images in, losses or boxes out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from ...backbones.base import Backbone
from ...backbones.batching import FeatureMaps, FeatureModel, Inputs, are_features, sizes_of
from ...backbones.pyramid import Pyramid, SingleLevel, build_pyramid
from ...core.errors import UserError
from ...core.structures import Detections, DetectionTarget
from ..transform import InputTransform

FeatureExtractor = Literal["last", "multi", "last4"]
_CLASS_ROWS = re.compile(
    r"head\.(.*\.)?(classes|cls_logits|classification_head\.module_list\.\d+|enc_score_head|"
    r"class_embed\.\d+)\.(weight|bias)$"
)


class Detector(FeatureModel):
    """A detector on a DINO backbone.

    ``forward(images, targets)``: images are a list of [3, H, W] tensors (uint8 or float in
    [0, 1], sizes may differ), one [B, 3, H, W], or what ``features`` says of them (as images that
    are resized already). In training the answer is a dict of scalar
    losses (their sum is what is minimised), otherwise one ``Detections`` an image, best first,
    boxes in pixels of the image handed in, labels from 1.

    Inference has two halves, so that nothing waits for a GPU before its results are fetched:
    ``start`` on the device, in fixed shapes, and ``finish`` wherever its answers are by then.
    Subclasses fill ``losses``, ``detect``, ``of_each`` (and ``finish``), in resized pixels.
    """

    def __init__(
        self, backbone: Backbone, neck: Pyramid, num_classes: int, transform: InputTransform
    ) -> None:
        super().__init__(backbone)
        if num_classes < 2:
            raise UserError(
                f"a detector needs at least 2 classes, __background__ included; got {num_classes}"
            )
        self.neck = neck
        self.num_classes = num_classes
        self.transform = transform

    @property
    def divisor(self) -> int:
        """Padded sizes are multiples of it: the backbone's, or more for some heads."""
        return self.transform.divisor

    def read(self, batch: Tensor) -> dict[str, Tensor]:
        """The maps that the neck looks at."""
        maps = super().read(batch)
        return {name: maps[name] for name in self.neck.reads}

    def forward(
        self, images: Inputs, targets: Sequence[DetectionTarget] | None = None
    ) -> dict[str, Tensor] | list[Detections]:
        if not self.training:
            return [self.finish(found) for found in self.start(images)]
        targets = self.targets_of(images, targets)
        if not are_features(images):
            images, resized = self.transform.apply(images, targets)
            targets = resized or targets
        batch = self.feature_maps(images)
        return self.losses(self._levels(batch), batch, targets)

    def class_rows(self, name: str, classes: Sequence[str], value: Tensor) -> list[str] | None:
        """See FeatureModel; SSD alone scores the background as well."""
        if not _CLASS_ROWS.match(name):
            return None
        return list(classes) if "module_list" in name else list(classes[1:])

    def start(self, images: Inputs) -> list[Any]:
        """What ``finish`` makes detections of, for each image; does not wait for the device."""
        originals = sizes_of(images)
        if not are_features(images):
            images, _ = self.transform.apply(images, None)
        return self.transform.restore(self.infer(images), sizes_of(images), originals)

    def keep_above(self, score: float) -> None:
        """Nobody will look at detections of less: a head may leave them out early."""

    def finish(self, found: Any) -> Detections:
        """Detections of an image, from what ``start`` said of it (which may have been moved)."""
        return found

    def _levels(self, batch: FeatureMaps) -> list[Tensor]:
        return list(self.neck(batch.maps).values())

    def losses(
        self, maps: list[Tensor], batch: FeatureMaps, targets: Sequence[DetectionTarget]
    ) -> dict[str, Tensor]:
        """Scalar losses of a batch. maps: the neck's, fine to coarse; batch: their source."""
        raise NotImplementedError

    def answers(self, batch: FeatureMaps) -> dict[str, Tensor]:
        """See ``detect``."""
        return self.detect(self._levels(batch), batch.padded)

    def detect(self, maps: list[Tensor], padded: tuple[int, int]) -> dict[str, Tensor]:
        """Candidates of a batch: boxes [B, K, 4] in its pixels, scores [B, K], labels [B, K].

        padded: (H, W) that the maps cover. ``of_each`` answers of each image what ``finish`` takes;
        "boxes" inside it.
        """
        raise NotImplementedError

    def thinned(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """``detect``'s answer after NMS, in fixed shapes: score -1 where there is nothing. (Heads
        without NMS answer it as it is.)"""
        return found


@dataclass(frozen=True)
class Parts:
    """What a head is handed to build a detector.

    num_classes counts the background; channels: width of the neck; nms: IoU above which the
    weaker of two boxes goes (heads without NMS do not look at it); size: of deimv2 as published.
    """

    backbone: Backbone
    num_classes: int
    feature_extractor: FeatureExtractor
    channels: int
    transform: InputTransform
    nms: float
    size: str | None = None


def build_neck(
    backbone: Backbone, feature_extractor: FeatureExtractor, channels: int, levels: int = 5
) -> Pyramid:
    """``multi``: the pyramid p3, p4, ...; ``last``: the last map alone. Both of ``channels``."""
    shapes = backbone.output_shape()
    if feature_extractor == "last":
        return SingleLevel(shapes, channels)
    return build_pyramid(shapes, channels, levels)
