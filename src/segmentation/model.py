"""Segmenters: a DINO backbone and a segmentation head.

``python -m src.segmentation.model --model-name dinov3_vits16 --head dpt`` prints a summary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .heads.base import Criterion
    from .segmenter import Segmenter


def build_segmenter(
    model_name: str,
    num_classes: int,
    *,
    head: str = "fpn",
    channels: int = 256,
    queries: int | None = None,
    task: str = "semantic",
    criterion: Criterion | None = None,
    **backbone: Any,
) -> Segmenter:
    """A segmenter for training or inference (see ``src.segmentation.segmenter.Segmenter``).

    channels: width of the head; queries: of a head that has some (default: 100, for objects 200);
    task: semantic, or instance and panoptic (an ``ObjectSegmenter``); criterion: the loss
    (default: cross-entropy); backbone: as ``build_backbone`` takes it (weights, hub,
    feature_extractor, ...). UserError for an unknown backbone or head, weights that do not fit, or
    a package that is missing.
    """
    from ..backbones.build import build_backbone
    from .heads.mask_queries import MANY_QUERIES
    from .heads.registry import HEAD_BUILDERS
    from .losses import PixelLoss
    from .segmenter import ObjectSegmenter, Segmenter

    kind = HEAD_BUILDERS[head]
    built = build_backbone(model_name, **backbone)
    if task != "semantic":
        queries = queries or MANY_QUERIES
    decoder = kind.on(built, num_classes, channels, queries)
    model = Segmenter if task == "semantic" else ObjectSegmenter
    return model(built, decoder, num_classes, criterion or PixelLoss())


def main(argv: Sequence[str] | None = None) -> None:
    """Print the torchinfo summary of a segmenter."""
    from ..engine.summary import run_summary
    from .settings import SegmentationModelSummary

    run_summary(SegmentationModelSummary, "python -m src.segmentation.model", build_segmenter, argv)


if __name__ == "__main__":
    main()
