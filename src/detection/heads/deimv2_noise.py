"""Queries made of truths by adding noise, which DEIMv2's decoder is to put right again
(contrastive denoising, https://arxiv.org/abs/2203.03605): the same figures as transformers' own,
from counts that the host knows, so that nothing waits for the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import box_convert

Group = tuple[Tensor, Tensor, Tensor, dict[str, Any]]


def noisy_queries(
    targets: Sequence[dict[str, Tensor]],
    num_classes: int,
    num_queries: int,
    class_embed: Callable[[Tensor], Tensor],
    num_denoising_queries: int = 100,
    label_noise_ratio: float = 0.5,
    box_noise_scale: float = 1.0,
) -> Group | tuple[None, None, None, None]:
    """transformers' ``get_contrastive_denoising_training_group``: embedded labels [B, D, C], boxes
    before the sigmoid [B, D, 4], the attention mask [D + Q, D + Q], and how D is made up. Of each
    group the first T queries are near a truth, the other T farther off."""
    counts = [len(one["class_labels"]) for one in targets]
    most = max(counts)
    if num_denoising_queries <= 0 or most == 0:
        return None, None, None, None
    groups = max(1, num_denoising_queries // most)
    boxes = pad_sequence([one["boxes"].float() for one in targets], batch_first=True)
    labels = pad_sequence([one["class_labels"] for one in targets], batch_first=True)
    place = torch.arange(most, device=boxes.device)
    there = torch.stack([place < count for count in counts])
    labels = labels.where(there, num_classes).to(torch.int32)
    labels, there = labels.tile(1, 2 * groups), there.tile(1, 2 * groups)
    boxes = boxes.tile(1, 2 * groups, 1)
    far = (torch.arange(2 * most, device=boxes.device) >= most).float().tile(groups)[None, :, None]
    if label_noise_ratio > 0:
        other = torch.rand_like(labels, dtype=torch.float) < label_noise_ratio * 0.5
        drawn = torch.randint_like(other, 0, num_classes, dtype=labels.dtype)
        labels = torch.where(other & there, drawn, labels)
    if box_noise_scale > 0:
        reach = boxes[..., 2:].tile(1, 1, 2) * 0.5 * box_noise_scale
        sign = torch.randint_like(boxes, 0, 2) * 2.0 - 1.0
        share = (torch.rand_like(boxes) + far) * sign
        moved = (box_convert(boxes, "cxcywh", "xyxy") + share * reach).clamp(0, 1)
        boxes = torch.logit(box_convert(moved, "xyxy", "cxcywh"), eps=1e-5)
    count = 2 * most * groups
    group = torch.arange(count + num_queries, device=boxes.device) // (2 * most)
    group = group.clamp(max=groups)  # the last one: the queries themselves
    # A group sees itself and the queries; the queries see no group.
    hidden = (group[:, None] != group) & (group < groups)
    mask = torch.zeros_like(hidden, dtype=torch.float).masked_fill(hidden, -torch.inf)
    made_up = {"dn_num_group": groups, "dn_num_split": [count, num_queries]}
    return class_embed(labels), boxes, mask, made_up
