"""Classifiers: a DINO backbone and a classification head.

``python -m src.classification.model --model-name dinov3_vits16 --head layers`` prints a summary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .classifier import Classifier


def build_classifier(
    model_name: str,
    num_classes: int,
    *,
    head: str = "linear",
    layers: int = 4,
    multi_label: bool = False,
    smoothing: float = 0.0,
    **backbone: Any,
) -> Classifier:
    """A classifier for training or inference (see ``src.classification.classifier.Classifier``).

    layers: how many of the backbone's last layers the head ``layers`` reads; smoothing: of the
    labels in the loss; backbone: what ``build_backbone`` takes (weights, hub, repo_dir,
    fine_tune). UserError for an unknown backbone or head, or weights that do not fit.
    """
    from ..backbones.build import build_backbone
    from .classifier import Classifier
    from .heads.registry import HEAD_BUILDERS
    from .losses import LabelLoss

    build = HEAD_BUILDERS[head]
    built = build_backbone(model_name, **backbone)
    spec = built.spec
    dims = spec.dims * spec.depths[0] if spec.is_vit else spec.dims
    criterion = LabelLoss(multi_label, smoothing)
    return Classifier(built, build(dims, num_classes, layers), criterion)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the torchinfo summary of a classifier."""
    from ..engine.summary import run_summary
    from .settings import ClassificationModelSummary

    run_summary(
        ClassificationModelSummary, "python -m src.classification.model", build_classifier, argv
    )


if __name__ == "__main__":
    main()
