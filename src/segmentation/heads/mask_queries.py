"""Mask classification: queries, each with a class and a mask (https://arxiv.org/abs/2107.06278).

What heads of queries share, with the parts of ``transformers`` (models/eomt); nothing is fetched.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...core.errors import UserError
from .base import Criterion, SegmentationHead
from .query_loss import QueryLoss

QUERIES = 100  # one a class is enough
MANY_QUERIES = 200  # where one is needed for each object
_LEAST = 1e-6


class Answer(NamedTuple):
    """What queries say: masks: logits [B, Q, h, w]; classes: logits [B, Q, C + 1], the last that
    of no object. The masks overlap: a class map is made of them in ``semantic``."""

    masks: Tensor
    classes: Tensor


def eomt_parts() -> Any:
    """transformers' EoMT module; UserError when the package is missing or too old."""
    import os

    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        from transformers.models.eomt import modeling_eomt
    except ImportError as error:
        raise UserError(
            f"heads of queries take parts from the package transformers (4.54 or later) and "
            f"scipy: pip install transformers scipy ({error})"
        ) from None
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
    return modeling_eomt


def semantic(answer: Answer) -> Tensor:
    """Log-probabilities [B, C, h, w] up to a constant: each class's masks, weighed by how sure
    their queries are of it."""
    shares = answer.classes.float().softmax(-1)[..., :-1]
    scores = torch.einsum("bqc,bqhw->bchw", shares, answer.masks.float().sigmoid())
    return scores.clamp(min=_LEAST).log()


class MaskQueryHead(SegmentationHead):
    """Subclasses fill ``queries``; ``set_loss`` in their ``__init__``."""

    def set_loss(self, config: Any, share: float = 1.0) -> None:
        """Mask2Former's loss (https://arxiv.org/abs/2112.01527) as an EomtConfig says: Hungarian
        matching, cross-entropy and Dice of masks on points, cross-entropy of classes; all times
        ``share``."""
        weights = config.class_weight, config.mask_weight, config.dice_weight
        points, nothing = config.train_num_points, config.no_object_weight
        self.loss = QueryLoss(config.num_labels, points, weights, nothing, share)

    def queries(self, maps: dict[str, Tensor]) -> list[Answer]:
        """In training one answer for each block (deep supervision), otherwise the last alone."""
        raise NotImplementedError

    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        return semantic(self.queries(maps)[-1])

    def losses(
        self, maps: dict[str, Tensor], masks: Tensor, criterion: Criterion
    ) -> dict[str, Tensor]:
        """The matched queries' class, mask and Dice losses, summed over the answers.

        The criterion is not asked. A pixel to be ignored belongs to no mask, as in Mask2Former;
        an image without a single labelled pixel is left out.
        """
        return self.loss(self.queries(maps), masks)

    def object_losses(
        self, maps: dict[str, Tensor], truths: Tensor, classes: Tensor
    ) -> dict[str, Tensor]:
        """The same of objects: masks [B, T, H, W], their classes [B, T], -1 where there is none;
        an image without objects has queries that are all to say so."""
        counted = torch.ones(len(classes), dtype=torch.bool, device=classes.device)
        return self.loss.of_truths(self.queries(maps), truths, classes, counted)
