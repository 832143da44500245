"""Models of depth: a DINO backbone and a depth head.

``python -m src.depth.model --model-name dinov3_vits16 --head dpt`` prints a summary.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .depther import Depther
    from .heads.base import Range
    from .losses import DepthLoss

log = logging.getLogger(__name__)


def build_depther(
    model_name: str,
    *,
    head: str = "linear",
    span: Range | None = None,
    channels: int = 256,
    criterion: DepthLoss | None = None,
    **backbone: Any,
) -> Depther:
    """A model for training or inference (see ``src.depth.depther.Depther``).

    span: the depths it can answer (default: those of NYU); channels: width of the head;
    criterion: the loss (default: SILog); backbone: what ``build_backbone`` takes. UserError for an
    unknown backbone or head, or weights that do not fit.
    """
    from ..backbones.build import build_backbone
    from .depther import Depther
    from .heads.base import Range
    from .heads.registry import HEAD_BUILDERS
    from .losses import DepthLoss

    build = HEAD_BUILDERS[head]
    built = build_backbone(model_name, **backbone)
    head_module = build(built.output_shape(), span or Range(), channels)
    return Depther(built, head_module, criterion or DepthLoss())


def main(argv: Sequence[str] | None = None) -> None:
    """Print the torchinfo summary of a model of depth."""
    from ..engine.summary import run_summary
    from .settings import DepthModelSummary

    run_summary(DepthModelSummary, "python -m src.depth.model", build_depther, argv)


if __name__ == "__main__":
    main()
