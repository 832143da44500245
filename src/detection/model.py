"""Detectors: a DINO backbone, a neck and a head.

``python -m src.detection.model --model-name dinov3_convnext_tiny --head ssd`` prints a summary.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.structures import ResizeMode, Size

if TYPE_CHECKING:
    from torch import nn

    from ..backbones.base import Backbone
    from .heads.base import Detector, FeatureExtractor

log = logging.getLogger(__name__)


def pyramid_channels(backbone: Backbone) -> int:
    """A width that suits the backbone: towers of 128 channels on a pyramid cost three times what
    the smallest ConvNeXt does, of 64 as much as it does."""
    deepest = backbone.spec.dims[-1]
    return 64 if deepest < 384 else 128 if deepest < 1024 else 256


def build_detector(
    model_name: str,
    num_classes: int,
    *,
    head: str = "atss",
    weights: str | Path = "none",
    hub: str = "auto",
    repo_dir: str | Path | None = None,
    feature_extractor: FeatureExtractor = "multi",
    fine_tune: bool = False,
    channels: int | None = None,
    nms: float = 0.45,
    deimv2_size: str | None = None,
    image_size: Size | None = None,
    resize: ResizeMode | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    hub_model: nn.Module | None = None,
    source: dict[str, Any] | None = None,
) -> Detector:
    """A detector for training or inference (see ``src.detection.heads.base.Detector``).

    num_classes counts the background (len(CLASSES)); channels: width of the pyramid, or of the
    one map of ``last`` (default: ``pyramid_channels``); deimv2_size: s, m, l or x, of that head as
    published. With image_size and resize the model
    resizes what it is handed; without, images are taken as they come (loaders and predictor
    resize). UserError for an unknown backbone or head, weights that do not fit, or a package
    that is missing.
    """
    from ..backbones.build import build_backbone
    from .heads.base import Parts
    from .heads.registry import HEAD_BUILDERS
    from .transform import InputTransform

    build = HEAD_BUILDERS[head]
    backbone = build_backbone(
        model_name,
        weights=weights,
        hub=hub,  # type: ignore[arg-type]
        repo_dir=repo_dir,
        feature_extractor=feature_extractor,
        fine_tune=fine_tune,
        mean=mean,
        std=std,
        hub_model=hub_model,
        source=source,
    )
    return build(
        Parts(
            backbone,
            num_classes,
            feature_extractor,
            channels=channels or pyramid_channels(backbone),
            transform=InputTransform(backbone.size_divisor, image_size, resize),
            nms=nms,
            size=deimv2_size,
        )
    )


def dinov3_detection(
    fine_tune: bool = False,
    num_classes: int = 2,
    weights: str | Path | None = None,
    model_name: str | None = None,
    repo_dir: str | Path | None = None,
    resolution: Sequence[int] = (640, 640),
    nms: float = 0.45,
    feature_extractor: FeatureExtractor = "last",
    head: str = "ssd",
    resize: ResizeMode = "stretch",
) -> Detector:
    """The tutorial's entry: a detector that resizes images of any size to ``resolution``.

    resolution: [width, height]; boxes come back in the pixels of the images handed in.
    num_classes counts the background. Without weights the backbone is random.
    """
    if weights is None:
        log.warning(
            "no weights given: the backbone starts from RANDOM weights; "
            "name a file, or weights='pretrained'"
        )
    return build_detector(
        model_name or "dinov3_vits16",
        num_classes,
        head=head,
        weights=weights or "none",
        repo_dir=repo_dir,
        feature_extractor=feature_extractor,
        fine_tune=fine_tune,
        nms=nms,
        image_size=Size(resolution[0], resolution[-1]),
        resize=resize,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the torchinfo summary of a detector."""
    from ..engine.summary import run_summary
    from .settings import DetectionModelSummary

    run_summary(DetectionModelSummary, "python -m src.detection.model", build_detector, argv)


if __name__ == "__main__":
    main()
