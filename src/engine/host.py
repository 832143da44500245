"""Between the host and the device, without stopping: the few doors where a step has to wait.

Whatever a training step must read off the device goes through an operation of this file, once a
batch, so that ``benchmarks.waits`` and its tests see each of them by name.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def upload(values: Any, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Numbers of the host as a tensor on the device of ``like``; nothing waits for it."""
    pinned = like.is_cuda and torch.cuda.is_available()
    host = torch.tensor(values, dtype=dtype or like.dtype, pin_memory=pinned)
    return host.to(like.device, non_blocking=True)


@torch.library.custom_op("dino_stack::present", mutates_args=())
def present(masks: Tensor, classes: int) -> Tensor:
    """Which of the first classes the masks uint8 [B, ...] have: int64 [B, T], ascending, filled up
    with -1; T is the largest count. Waits for the device once."""
    flat = masks.flatten(1).long()
    table = flat.new_zeros((len(flat), 256), dtype=torch.bool).scatter_(1, flat, True)
    rows = [row.nonzero().squeeze(1) for row in table[:, :classes].cpu()]
    return _there(torch.nn.utils.rnn.pad_sequence(rows, True, -1), masks)


@present.register_fake
def _(masks: Tensor, classes: int) -> Tensor:
    return masks.new_empty((len(masks), 1), dtype=torch.int64)


@torch.library.custom_op("dino_stack::assign", mutates_args=())
def assign(costs: Tensor) -> Tensor:
    """The cheapest one-to-one assignments: costs [L, B, Q, T] of giving query q to truth t (NaN in
    its whole column: there is no such truth) -> the query of each truth, int64 [L, B, T]: -1, none.

    Waits for the device once; the Hungarian method (scipy's) is the host's.
    """
    from scipy.optimize import linear_sum_assignment

    table = costs.detach().to("cpu", torch.float32).numpy()
    layers, images, _, most = costs.shape
    answer = torch.full((layers, images, most), -1, dtype=torch.int64)
    for layer in range(layers):
        for image in range(images):
            one = table[layer, image]
            there = (one[:1] == one[:1]).nonzero()[1]
            queries, truths = linear_sum_assignment(one[:, there])
            answer[layer, image, torch.from_numpy(there[truths])] = torch.from_numpy(queries)
    return _there(answer, costs)


@assign.register_fake
def _(costs: Tensor) -> Tensor:
    layers, images, _, most = costs.shape
    return costs.new_empty((layers, images, most), dtype=torch.int64)


def _there(values: Tensor, like: Tensor) -> Tensor:
    """A tensor of the CPU on the device of ``like``; does not wait."""
    return values.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else values


def inverse(answer: Tensor, queries: int) -> Tensor:
    """The truth of each query, from ``assign``'s query of each truth: [L, B, T] -> [L, B, Q], -1
    where it has none."""
    layers, images, most = answer.shape
    room = answer.new_full((layers, images, queries + 1), -1)  # one more, for truths without query
    truths = torch.arange(most, device=answer.device).expand_as(answer)
    return room.scatter(2, answer.where(answer >= 0, queries), truths)[..., :queries]
