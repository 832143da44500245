"""DEIMv2's loss without waiting for the device: the same figures as transformers' own.

transformers matches layer after layer and image after image on the host, and works on lists of
pairs, whose lengths the host must know. Here all layers and images are matched in one go
(``engine.host.assign``), and every loss is taken over all queries, those without a truth masked.

Matching-aware loss: https://arxiv.org/abs/2412.04234; fine-grained localisation and its
distillation: https://arxiv.org/abs/2410.13842; unions of the layers' matchings:
https://arxiv.org/abs/2509.20787.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import box_convert

from ...engine.host import assign, inverse
from .boxes import giou_loss, overlaps

TEMPERATURE = 5.0  # of the distillation
_TINY = 1e-12  # of areas in shares of the image


@dataclass(frozen=True)
class Truths:
    """The objects of a batch, filled up to one length T >= 1: boxes [B, T, 4] (cxcywh, shares of
    the image), labels int64 [B, T] from 0; counts: how many an image has."""

    boxes: Tensor
    labels: Tensor
    counts: list[int]

    @classmethod
    def of(cls, labels: Sequence[dict[str, Tensor]]) -> Truths:
        """From transformers' lists ("class_labels", "boxes")."""
        counts = [len(one["class_labels"]) for one in labels]
        boxes = pad_sequence([one["boxes"].float() for one in labels], batch_first=True)
        numbers = pad_sequence([one["class_labels"] for one in labels], batch_first=True)
        if not max(counts):
            boxes, numbers = boxes.new_zeros(len(labels), 1, 4), numbers.new_zeros(len(labels), 1)
        return cls(boxes, numbers, counts)

    @property
    def there(self) -> Tensor:
        """bool [B, T]: which are none of the filling."""
        place = torch.arange(self.labels.shape[1], device=self.labels.device)
        return torch.stack([place < count for count in self.counts])

    def at(self, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes and labels of truths [B, Q] (-1: any)."""
        index = truth.clamp(min=0)
        boxes = self.boxes.gather(1, index[..., None].expand(-1, -1, 4))
        return boxes, self.labels.gather(1, index)


def corners(boxes: Tensor) -> Tensor:
    """cxcywh -> xyxy."""
    return box_convert(boxes, "cxcywh", "xyxy")


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, truths: Truths, config: Any) -> Tensor:
    """The truth of each query, int64 [L, B, Q] (-1: none): logits [L, B, Q, C], boxes
    [L, B, Q, 4]."""
    layers, _, queries, _ = logits.shape
    wanted = truths.labels[None, :, None].expand(layers, -1, queries, -1)
    shares = logits.float().sigmoid().gather(3, wanted)
    alpha, gamma = config.matcher_alpha, config.matcher_gamma
    negative = (1 - alpha) * shares**gamma * -(1 - shares + 1e-8).log()
    positive = alpha * (1 - shares) ** gamma * -(shares + 1e-8).log()
    mine, theirs = boxes.float()[:, :, :, None], truths.boxes[None, :, None]
    cost = config.matcher_class_cost * (positive - negative)
    cost = cost + config.matcher_bbox_cost * (mine - theirs).abs().sum(dim=-1)
    giou = 1 - giou_loss(corners(mine), corners(theirs), _TINY)
    cost = cost - config.matcher_giou_cost * giou
    worst = torch.finfo(torch.float32).max
    cost = torch.nan_to_num(cost, nan=worst, posinf=worst, neginf=worst)
    return inverse(assign(cost.masked_fill(~truths.there[:, None], torch.nan)), queries)


def union(matches: Tensor, most: int) -> Tensor:
    """Of each query the truth that most layers gave it: [L, B, Q] -> [B, Q] (-1: none did)."""
    votes = F.one_hot(matches + 1, most + 1)[..., 1:].sum(dim=0)
    count, truth = votes.max(dim=2)
    first = (votes == count[..., None]).int().argmax(dim=2)  # of equal ones the first, everywhere
    return first.where(count > 0, -1)


def steps_of(config: Any, up: Tensor) -> Tensor:
    """The distances [bins + 1] that the bins stand for, in units of the reference's sides over
    ``reg_scale`` (the weighting function of D-FINE)."""
    half = config.max_num_bins // 2
    bound = up.abs() * abs(config.reg_scale)
    step = (bound + 1) ** (2 / (config.max_num_bins - 2))
    right = step ** torch.arange(1, half, device=up.device) - 1
    edge = 2 * bound
    return torch.cat([-edge, -right.flip(0), torch.zeros_like(edge), right, edge])


class Criterion:
    """The terms of a batch: ``mal``, ``bbox``, ``giou``, ``fgl``, ``ddf``, weighted and summed
    over the layers; config: the model's."""

    def __init__(self, config: Any) -> None:
        assert config.use_dense_one_to_one and config.use_focal_loss and config.auxiliary_loss
        self.config = config
        self.sums: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor) -> None:
        """A layer's share of a term."""
        value = value * getattr(self.config, f"weight_loss_{name}")
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    def classes(self, logits: Tensor, boxes: Tensor, truth: Tensor, truths: Truths, n: Any) -> None:
        """``mal`` of logits [B, Q, C]: towards the IoU that a matched query's box reaches."""
        logits = logits.float()
        there = truth >= 0
        true_boxes, labels = truths.at(truth)
        shared, covered = overlaps(corners(boxes.detach()), corners(true_boxes))
        wanted = F.one_hot(labels, logits.shape[2]) * there[..., None]
        gamma, alpha = self.config.focal_loss_gamma, self.config.mal_alpha
        score = ((shared / covered)[..., None] * wanted).nan_to_num().pow(gamma)
        weight = logits.detach().sigmoid().pow(gamma) * (1 - wanted)
        weight = weight * (1.0 if alpha is None else alpha) + wanted
        loss = F.binary_cross_entropy_with_logits(logits, score, weight, reduction="sum")
        self.add("mal", loss / n)

    def boxes(self, boxes: Tensor, truth: Tensor, truths: Truths, n: Any) -> None:
        """``bbox`` and ``giou`` of boxes [B, Q, 4]."""
        there = truth >= 0
        true_boxes, _ = truths.at(truth)
        far = (boxes - true_boxes).abs().sum(dim=2)
        self.add("bbox", far.where(there, 0.0).sum() / n)
        giou = giou_loss(corners(boxes), corners(true_boxes), _TINY)
        self.add("giou", giou.where(there, 0.0).sum() / n)

    def local(self, layer: dict[str, Any], truth: Tensor, truths: Truths, n: Any) -> None:
        """``fgl`` and ``ddf``: of the distributions that the sides of a box are made of."""
        there = truth >= 0
        true_boxes, _ = truths.at(truth)
        shared, covered = overlaps(corners(layer["pred_boxes"].detach()), corners(true_boxes))
        iou = (shared / covered).nan_to_num()
        pred = layer["pred_corners"].float().unflatten(2, (4, -1))  # [B, Q, 4, bins + 1]
        left, right_share = self._bins(layer["ref_points"].detach().float(), true_boxes, layer)
        logs = pred.log_softmax(dim=3)
        at_left = logs.gather(3, left[..., None]).squeeze(3)
        at_right = logs.gather(3, left[..., None] + 1).squeeze(3)
        loss = -(at_left * (1 - right_share) + at_right * right_share).sum(dim=2) * iou
        self.add("fgl", loss.where(there, 0.0).sum() / n)
        if layer["pred_corners"] is not layer["teacher_corners"]:
            self._distil(layer, pred, there, iou)

    def _bins(self, points: Tensor, boxes: Tensor, layer: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The bin left of each side's true distance, int64 [B, Q, 4], and the share of the next."""
        scale, bins = abs(self.config.reg_scale), self.config.max_num_bins
        box = corners(boxes)
        sides = torch.cat([points[..., :2] - box[..., :2], box[..., 2:] - points[..., :2]], dim=2)
        unit = points[..., 2:].repeat(1, 1, 2) / scale + 1e-16
        distance = sides / unit - 0.5 * scale
        steps = layer["steps"]
        left = (steps <= distance[..., None]).sum(dim=3) - 1
        inside = left.clamp(0, bins - 1)
        below, above = (distance - steps[inside]).abs(), (steps[inside + 1] - distance).abs()
        share = (below / (below + above)).where(left >= 0, 0.0).where(left < bins, 1.0)
        return inside, share

    def _distil(self, layer: dict[str, Any], pred: Tensor, there: Tensor, iou: Tensor) -> None:
        teacher = layer["teacher_corners"].detach().float().unflatten(2, (4, -1))
        weight = layer["teacher_logits"].detach().float().sigmoid().amax(dim=2)
        weight = torch.where(there, iou, weight)
        mine = (pred / TEMPERATURE).log_softmax(dim=3)
        other = (teacher / TEMPERATURE).softmax(dim=3)
        far = F.kl_div(mine, other, reduction="none").sum(dim=(2, 3))
        far = weight * TEMPERATURE**2 * far
        shares, total = [], pred.new_zeros(())
        for mask in (there, ~there):
            count = 4 * mask.sum()
            share = (count / len(pred)).sqrt()
            total = total + far.where(mask, 0.0).sum() / count.clamp(min=1) * share
            shares.append(share)
        self.add("ddf", total / (shares[0] + shares[1]))


def deimv2_loss(
    logits: Tensor,
    labels: Sequence[dict[str, Tensor]],
    device: Any,
    pred_boxes: Tensor,
    config: Any,
    outputs_class: Tensor,
    outputs_coord: Tensor,
    enc_topk_logits: Tensor,
    enc_topk_bboxes: Tensor,
    denoising_meta_values: dict[str, Any] | None,
    predicted_corners: Tensor,
    initial_reference_points: Tensor,
    **_: Any,
) -> tuple[Tensor, dict[str, Tensor], None]:
    """transformers' ``loss_function`` of DEIMv2 (its arguments): the sum, and the terms by name
    ("loss_mal", ...), each summed over the layers."""
    truths = Truths.of(labels)
    count = float(max(1, sum(truths.counts)))
    criterion = Criterion(config)
    split = denoising_meta_values["dn_num_split"] if denoising_meta_values else [0, logits.shape[1]]
    parts = [
        value.split(split, dim=2)
        for value in (
            outputs_class,
            outputs_coord.clamp(min=0, max=1),
            predicted_corners,
            initial_reference_points,
        )
    ]
    steps = steps_of(config, predicted_corners.new_full((1,), config.up, dtype=torch.float32))
    noisy, plain = (_layers([part[side] for part in parts], steps) for side in (0, 1))
    last = parts[0][1][:, -1], parts[1][1][:, -1]
    first = enc_topk_logits, enc_topk_bboxes.clamp(min=0, max=1)
    inner = plain[:-1]  # the last layer's distributions teach the others
    judged = [last, *[(one["logits"], one["pred_boxes"]) for one in inner], first]
    matches = match(
        torch.stack([one for one, _ in judged]),
        torch.stack([one for _, one in judged]),
        truths,
        config,
    )
    together = union(matches, truths.labels.shape[1])
    pairs = (together >= 0).sum().clamp(min=1)
    for (scores, boxes), truth in zip(judged, matches):
        criterion.boxes(boxes, together, truths, pairs)
        criterion.classes(scores, boxes, truth, truths, count)
    for layer in inner:
        criterion.local(layer, together, truths, pairs)
    if denoising_meta_values:
        _denoised(criterion, noisy, truths, count, denoising_meta_values["dn_num_group"])
    terms = {f"loss_{name}": value for name, value in criterion.sums.items()}
    return torch.stack([*terms.values()]).sum(), terms, None


def _layers(parts: Sequence[Tensor], steps: Tensor) -> list[dict[str, Any]]:
    """The decoder layers [B, L, Q, ...] as transformers pairs them: there is one more of logits
    and boxes than of distributions, those before the first refinement."""
    logits, boxes, distributions, points = (value.unbind(1) for value in parts)
    return [
        {
            "logits": one,
            "pred_boxes": box,
            "pred_corners": sides,
            "ref_points": point,
            "teacher_corners": distributions[-1],
            "teacher_logits": logits[-1],
            "steps": steps,
        }
        for one, box, sides, point in zip(logits, boxes, distributions, points)
    ]


def _denoised(
    criterion: Criterion, layers: list[dict[str, Any]], truths: Truths, count: float, groups: int
) -> None:
    """Queries made of truths by adding noise know what they belong to: of each group's 2 T the
    first T, in order."""
    most = truths.labels.shape[1]
    place = torch.arange(2 * most, device=truths.labels.device).repeat(groups)
    counts = torch.stack([(place < n) & (place < most) for n in truths.counts])
    truth = place.expand_as(counts).where(counts, -1)
    n = count * groups
    for layer in layers:
        criterion.classes(layer["logits"], layer["pred_boxes"], truth, truths, n)
        criterion.boxes(layer["pred_boxes"], truth, truths, n)
        criterion.local(layer, truth, truths, n)
