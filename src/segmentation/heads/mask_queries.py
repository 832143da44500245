"""Mask classification: queries, each with a class and a mask (https://arxiv.org/abs/2107.06278).

What heads of queries share, with the parts and the loss of ``transformers`` (models/eomt);
nothing is downloaded.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...core.errors import UserError
from ...core.structures import IGNORE
from .base import Criterion, SegmentationHead

QUERIES = 100
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
        self.weights = {
            "loss_cross_entropy": config.class_weight * share,
            "loss_mask": config.mask_weight * share,
            "loss_dice": config.dice_weight * share,
        }
        self.loss = eomt_parts().EomtLoss(config, self.weights)
        self.points = config.train_num_points

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
        labels = [mask.unique() for mask in masks]
        labels = [found[found != IGNORE].long() for found in labels]
        use = [i for i, found in enumerate(labels) if len(found)]
        answers = self.queries(maps)
        if not use:
            return {"mask": sum(m.sum() * 0 + c.sum() * 0 for m, c in answers)}  # type: ignore
        truths = [(masks[i][None] == labels[i][:, None, None]).float() for i in use]
        kept = [labels[i] for i in use]
        # More points than an image has pixels would be the same ones again.
        self.loss.num_points = min(self.points, masks[0].numel())
        self.loss.matcher.num_points = self.loss.num_points
        total = {name: torch.zeros((), device=masks.device) for name in self.weights}
        for answer in answers:
            found = answer.masks[use].float(), answer.classes[use].float()
            for name, value in self.loss(*found, truths, kept).items():
                total[name] = total[name] + self.weights[name] * value
        return {name.removeprefix("loss_"): value for name, value in total.items()}
