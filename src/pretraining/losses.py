"""The losses of DINOv2 and DINOv3 (https://arxiv.org/abs/2304.07193, https://arxiv.org/abs/2508.10104).

Formulas alone; equal to Meta's numbers (tests/pretraining/test_losses.py). All in float32.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from ..engine.distributed import several

Negatives = Literal["keep", "drop", "drop-teacher"]


def dino_loss(
    student: Tensor, targets: Tensor, *, temperature: float = 0.1, skip_same: bool = False
) -> Tensor:
    """Cross-entropy of every student crop with every teacher crop of the same image, their mean.

    student: logits [S, B, K]; targets: [T, B, K], each summing to 1; skip_same: leave out the
    pairs of crop s with crop s, which are the same view.
    """
    crops, batch, _ = student.shape
    logs = (student.float() / temperature).log_softmax(dim=-1)
    pairs = -torch.einsum("sbk,tbk->st", logs, targets)
    count = crops * len(targets)
    if skip_same:
        same = min(crops, len(targets))
        keep = torch.ones_like(pairs).fill_diagonal_(0)
        pairs, count = pairs * keep, count - same
    return pairs.sum() / (batch * count)


def dino_scales(global_crops: int, local_crops: int) -> tuple[float, float]:
    """Weights of the global and the local part, by their numbers of pairs: with two global crops
    2 / (2 + 2 L) and 2 L / (2 + 2 L)."""
    between = global_crops * (global_crops - 1)
    local = global_crops * local_crops
    return between / (between + local), local / (between + local)


def ibot_loss(student: Tensor, targets: Tensor, masks: Tensor, temperature: float = 0.1) -> Tensor:
    """Cross-entropy at masked patches: mean within a crop, then over all crops.

    student: logits [M, K] of the masked patches in the order of ``masks``; targets: [M, K];
    masks: bool [crops, patches]; crops without a masked patch count as 0 (iBOT,
    https://arxiv.org/abs/2111.07832).
    """
    losses = -(targets * (student.float() / temperature).log_softmax(dim=-1)).sum(dim=-1)
    weights = 1 / masks.sum(dim=-1, keepdim=True).clamp(min=1)
    return (losses * weights.expand(masks.shape)[masks]).sum() / len(masks)


def koleo_loss(features: Tensor, *, neighbours: int = 1, everywhere: bool = False) -> Tensor:
    """Spreads features: minus the mean log distance to the nearest neighbours on the sphere
    (https://arxiv.org/abs/1806.03198).

    features: [B, C] of one crop of each image; everywhere: neighbours are sought among the images
    of all processes (equally many on each), and the gradient flows to theirs as well.
    """
    with torch.autocast(features.device.type, enabled=False):
        own = F.normalize(features.float(), dim=-1, eps=1e-8)
        others, first = own, 0
        if everywhere and several():
            from torch.distributed.nn.functional import all_gather

            others = torch.cat(all_gather(own))
            first = dist.get_rank() * len(own)
        with torch.no_grad():
            similarity = own @ others.T
            rows = torch.arange(len(own), device=own.device)
            similarity[rows, first + rows] = -1  # not oneself
            nearest = similarity.topk(neighbours, dim=1).indices
        distances = F.pairwise_distance(
            own.repeat_interleave(neighbours, dim=0), others[nearest.flatten()], eps=1e-8
        )
        return -(distances + 1e-8).log().mean()


def gram_loss(
    student: Tensor, teacher: Tensor, *, within_image: bool = True, negatives: Negatives = "keep"
) -> Tensor:
    """Gram anchoring (DINOv3): squared difference of the patches' cosine similarities, their mean.

    student, teacher: patches [B, N, C] (C may differ); within_image: similarities of the patches
    of one image, else of the whole batch; negatives: similarities below 0 are kept, set to 0 on
    both sides, or on the teacher's alone.
    """
    similarities = []
    for patches in (student, teacher):
        unit = F.normalize(patches.float(), dim=-1)
        unit = unit if within_image else unit.flatten(0, 1)
        similarities.append(unit @ unit.transpose(-1, -2))
    ours, theirs = similarities
    if negatives != "keep":
        theirs = theirs.clamp(min=0)
    if negatives == "drop":
        ours = ours.clamp(min=0)
    return F.mse_loss(ours, theirs)
