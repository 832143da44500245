"""The loss of mask queries (Mask2Former, https://arxiv.org/abs/2112.01527) without waiting for the
device at each image and layer: the same figures as transformers' ``EomtLoss``.

The host is needed twice a batch: which classes each image has (not where the truth is a mask an
object), and the matching of all layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...engine.host import assign, inverse, present

Answer = tuple[Tensor, Tensor]  # mask logits [B, Q, h, w] and class logits [B, Q, C + 1]


class QueryLoss(nn.Module):
    """Terms of matched queries: cross-entropy of the classes, and of masks at sampled points
    cross-entropy and Dice; each weight counts in the matching as well.

    points: of a mask (no more than it has pixels), ``important`` of them the least certain of
    ``oversample`` times as many;
    weights: of the classes, masks and Dice, in the matching and (times ``share``) in the loss;
    nothing: of queries without a truth.
    """

    empty_weight: Tensor
    oversample, important = 3.0, 0.75

    def __init__(
        self,
        num_classes: int,
        points: int,
        weights: Sequence[float],
        nothing: float = 0.1,
        share: float = 1.0,
    ) -> None:
        super().__init__()
        self.most, self.points, self.share = points, points, share
        self.class_weight, self.mask_weight, self.dice_weight = weights
        empty_weight = torch.ones(num_classes + 1)
        empty_weight[-1] = nothing
        self.register_buffer("empty_weight", empty_weight)

    def forward(self, answers: Sequence[Answer], masks: Tensor) -> dict[str, Tensor]:
        """Summed over the answers; masks uint8 [B, H, W]: classes, others count for nothing.

        A pixel of no class belongs to no mask; an image without any is left out."""
        classes = present(masks, answers[0][1].shape[2] - 1)
        if not classes.shape[1]:
            nothing = [mask.sum() * 0 + scores.sum() * 0 for mask, scores in answers]
            return {"mask": torch.stack(nothing).sum().float()}
        truths = masks[:, None] == classes[..., None, None]  # [B, T, H, W]
        return self.of_truths(answers, truths, classes, (classes >= 0).any(dim=1))

    def of_truths(
        self, answers: Sequence[Answer], truths: Tensor, classes: Tensor, counted: Tensor
    ) -> dict[str, Tensor]:
        """Summed over the answers; truths [B, T, H, W] of 0 and 1 (T at least 1) and their classes
        int64 [B, T], -1 where there is none; counted: bool [B], the images whose queries without a
        truth are to say so."""
        answers = [(mask.float(), scores.float()) for mask, scores in answers]
        truths = truths.float()
        self.points = min(self.most, truths[0, 0].numel())  # more would be the same ones again
        with torch.autocast(truths.device.type, enabled=False):
            matches = self._match(answers, truths, classes)
            queries = answers[0][0].shape[1]
            total: dict[str, Tensor] = {}
            for answer, match, truth in zip(answers, matches, inverse(matches, queries)):
                entropy = self._classes(answer[1], truth, classes, counted)
                terms = {
                    "cross_entropy": self.class_weight * entropy,
                    **self._masks(answer[0], match, truths, classes >= 0),
                }
                for name, value in terms.items():
                    total[name] = total.get(name, 0.0) + self.share * value
        return total

    @torch.no_grad()
    def _match(self, answers: Sequence[Answer], truths: Tensor, classes: Tensor) -> Tensor:
        """The query of each truth, int64 [L, B, T]."""
        costs = []
        for masks, scores in answers:
            places = torch.rand(len(masks), self.points, 2, device=masks.device)
            found, true = at(masks, places), at(truths, places).transpose(1, 2)  # [B, Q|T, P]
            positive, negative = F.softplus(-found), F.softplus(found)
            entropy = (positive @ true + negative @ (1 - true)) / self.points
            share = found.sigmoid()
            size = share.sum(dim=2, keepdim=True) + true.sum(dim=1, keepdim=True)
            dice = 1 - (2 * share @ true + 1) / (size + 1)
            wanted = classes.clamp(min=0)[:, None].expand(-1, masks.shape[1], -1)
            sure = scores.softmax(dim=2).gather(2, wanted)
            cost = self.mask_weight * entropy + self.dice_weight * dice - self.class_weight * sure
            worst = torch.finfo(cost.dtype).max
            cost = torch.nan_to_num(cost, nan=worst, posinf=worst, neginf=worst)
            costs.append(cost.masked_fill((classes < 0)[:, None], torch.nan))
        return assign(torch.stack(costs))

    def _classes(self, scores: Tensor, truth: Tensor, classes: Tensor, counted: Tensor) -> Tensor:
        """Cross-entropy of class logits [B, Q, C + 1]; truth [B, Q]: place in classes, or -1."""
        last = len(self.empty_weight) - 1
        wanted = classes.gather(1, truth.clamp(min=0)).where(truth >= 0, last)
        loss = F.cross_entropy(scores.transpose(1, 2), wanted, reduction="none")
        weight = self.empty_weight[wanted] * counted[:, None]
        return (loss * weight).sum() / weight.sum()

    def _masks(
        self, masks: Tensor, match: Tensor, truths: Tensor, there: Tensor
    ) -> dict[str, Tensor]:
        """Both losses of mask logits [B, Q, h, w] against truths [B, T, H, W]."""
        index = match.clamp(min=0)[..., None, None].expand(-1, -1, *masks.shape[-2:])
        mine, true = masks.gather(1, index).flatten(0, 1)[:, None], truths.flatten(0, 1)[:, None]
        with torch.no_grad():
            places = self._places(mine)
            wanted = at(true, places).squeeze(1)
        found = at(mine, places).squeeze(1)  # [B * T, P]
        entropy = F.binary_cross_entropy_with_logits(found, wanted, reduction="none").mean(dim=1)
        share = found.sigmoid()
        size = share.sum(dim=1) + wanted.sum(dim=1)
        dice = 1 - (2 * (share * wanted).sum(dim=1) + 1) / (size + 1)
        use, count = (match >= 0).flatten(), there.sum().clamp(min=1)
        return {
            "mask": self.mask_weight * entropy.where(use, 0.0).sum() / count,
            "dice": self.dice_weight * dice.where(use, 0.0).sum() / count,
        }

    def _places(self, masks: Tensor) -> Tensor:
        """Points [N, P, 2] in shares of the image: mostly where masks [N, 1, h, w] are not sure."""
        many, few = int(self.points * self.oversample), int(self.points * self.important)
        drawn = torch.rand(len(masks), many, 2, device=masks.device)
        doubt = -at(masks, drawn).squeeze(1).abs()
        best = doubt.topk(few, dim=1).indices[..., None].expand(-1, -1, 2)
        rest = torch.rand(len(masks), self.points - few, 2, device=masks.device)
        return torch.cat([drawn.gather(1, best), rest], dim=1)


def at(maps: Tensor, places: Tensor) -> Tensor:
    """Values of maps [N, C, h, w] at places [N, P, 2] (x, y in shares of the image): [N, C, P]."""
    grid = 2 * places[:, :, None] - 1
    return F.grid_sample(maps, grid, align_corners=False).squeeze(3)
