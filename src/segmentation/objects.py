"""From what queries say to objects in the pixels of the original image, as EoMT makes them
(https://github.com/tue-mps/eomt, training/mask_classification_instance.py, _panoptic.py,
lightning_module.py: ``to_per_pixel_preds_panoptic``).

The first half runs where the model does and answers tensors of fixed sizes on CUDA, so that
nothing waits there; the second makes arrays of them on the host.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..backbones.dense import upsample
from ..core.structures import Geometry

MOST = 100  # instances of an image, as COCO counts them
CERTAIN = 0.8  # a query that is less sure of its class makes no segment (panoptic)
OVERLAP = 0.8  # nor does one whose mask is hidden more than by the rest of this
MOST_VALUES = 2**25  # logits in the original's pixels that are there at once: 128 MiB


class Instances(NamedTuple):
    """Objects of an image, best first: masks bool [N, H, W], which may overlap; scores float32 [N]
    in [0, 1]; labels int64 [N], class indices from 0; tracks: int64 [N], of a video's objects, from
    1 (0: none so far), where they are tracked."""

    masks: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    tracks: np.ndarray | None = None

    def some(self, rows: np.ndarray) -> Instances:
        """Those of a mask bool [N], or of indices."""
        tracks = None if self.tracks is None else self.tracks[rows]
        return Instances(self.masks[rows], self.scores[rows], self.labels[rows], tracks)


class Panoptic(NamedTuple):
    """Segments of an image: ids int32 [H, W], from 1, 0 where there is none; of segment n + 1
    labels int64 [N], from 0, and scores float32 [N]."""

    ids: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


def _blocks(answer: Mapping[str, Any], rows: Tensor, geometry: Geometry) -> Iterator[Tensor]:
    """Mask logits float32 [k, H, W] of the queries ``rows`` in the original's pixels, some after
    the other: up to the padded image, without the padding, to the original's size."""
    size = (geometry.original.height, geometry.original.width)
    block = max(1, MOST_VALUES // (size[0] * size[1]))
    for start in range(0, len(rows), block):
        masks = answer["masks"][rows[start : start + block]]
        whole = upsample(masks[None], answer["padded"])
        inside = whole[..., : geometry.resized.height, : geometry.resized.width]
        yield upsample(inside, size)[0]


def instances_of(
    answer: Mapping[str, Any], geometry: Geometry, threshold: float = 0.0
) -> dict[str, Any]:
    """The ``MOST`` best pairs of a query and a class: packed masks, scores, labels. A score is
    that of the class times the mean probability of the mask inside itself.

    threshold: on the CPU no mask is made of what cannot reach it.
    """
    shares = answer["classes"].softmax(dim=-1)[:, :-1]
    scores, pairs = shares.flatten().topk(min(MOST, shares.numel()))
    if not scores.is_cuda:
        pairs, scores = pairs[scores >= threshold], scores[scores >= threshold]
    rows = torch.div(pairs, shares.shape[1], rounding_mode="floor")
    packed, certain = [_pack(answer["masks"].new_zeros(0, *_size(geometry)))], [scores[:0]]
    for logits in _blocks(answer, rows, geometry):
        inside = logits > 0
        pixels = inside.flatten(1).sum(dim=1)
        packed.append(_pack(inside))
        certain.append((logits.sigmoid() * inside).flatten(1).sum(dim=1) / (pixels + 1e-6))
    return {
        "masks": torch.cat(packed),
        "scores": scores * torch.cat(certain),
        "labels": pairs % shares.shape[1],
    }


def _size(geometry: Geometry) -> tuple[int, int]:
    return geometry.original.height, geometry.original.width


def _pack(masks: Tensor) -> Tensor:
    """Masks [k, H, W] -> uint8 [k, ceil(H * W / 8)], as numpy.packbits: an eighth to bring home."""
    bits = masks.flatten(1).to(torch.uint8)
    bits = F.pad(bits, (0, -bits.shape[1] % 8))
    weights = 2 ** torch.arange(7, -1, -1, device=bits.device, dtype=torch.uint8)
    eights = bits.view(len(bits), bits.shape[1] // 8, 8)
    return (eights * weights).sum(dim=-1, dtype=torch.uint8)


def instances_from(
    result: Mapping[str, Tensor], geometry: Geometry, threshold: float = 0.0
) -> Instances:
    """What ``instances_of`` answers, on the CPU: those that reach the threshold and have a pixel,
    best first."""
    height, width = _size(geometry)
    scores = result["scores"].numpy()
    order = np.argsort(-scores, kind="stable")
    order = order[(scores[order] >= threshold) & (scores[order] > 0)]
    bits = np.unpackbits(result["masks"].numpy()[order], axis=1, count=height * width)
    masks = bits.reshape(len(order), height, width).view(bool)
    return Instances(masks, scores[order], result["labels"].numpy()[order])


def panoptic_of(
    answer: Mapping[str, Any], geometry: Geometry, threshold: float = CERTAIN
) -> dict[str, Any]:
    """Which query each pixel is of, int16 [H, W], -1 none; the queries' labels, scores, and
    whether they are segments.

    A pixel is of the query with the largest product of its class's score and its own probability,
    if that is inside the query's own mask; a query of which less than ``OVERLAP`` is left is none.
    """
    scores, labels = answer["classes"].softmax(dim=-1).max(dim=-1)
    keep = (labels != answer["classes"].shape[-1] - 1) & (scores > threshold)
    rows = torch.arange(len(scores), device=scores.device)
    if not scores.is_cuda:  # there all go on: how many are kept is not known without a wait
        rows = rows[keep]
        scores, labels, keep = scores[rows], labels[rows], keep[rows]
    weight = torch.where(keep, scores, -1.0)
    size = _size(geometry)
    best = weight.new_full(size, -2.0)
    owner = torch.zeros(size, dtype=torch.int64, device=labels.device)
    inside = torch.zeros(size, dtype=torch.bool, device=labels.device)
    whole = [weight[:0]]
    start = 0
    for logits in _blocks(answer, rows, geometry):
        shares = logits.sigmoid()
        own = shares >= 0.5
        whole.append(own.flatten(1).sum(dim=1).to(weight))
        value, index = (weight[start : start + len(shares), None, None] * shares).max(dim=0)
        better = value > best
        best = torch.where(better, value, best)
        owner = torch.where(better, index + start, owner)
        inside = torch.where(better, own.gather(0, index[None])[0], inside)
        start += len(shares)
    if not len(rows):
        none = torch.full(size, -1, dtype=torch.int16, device=labels.device)
        return {"owner": none, "labels": labels, "scores": scores, "valid": keep}
    nothing, flat = torch.zeros_like(scores), owner.flatten()
    won = nothing.scatter_add(0, flat, torch.ones_like(best).flatten())
    left = nothing.scatter_add(0, flat, inside.flatten().to(best))
    valid = keep & (left > 0) & (won / torch.cat(whole).clamp(min=1) >= OVERLAP)
    owner = torch.where(inside & valid[owner], owner, -1).to(torch.int16)
    return {"owner": owner, "labels": labels, "scores": scores, "valid": valid}


def panoptic_from(
    result: Mapping[str, Tensor], geometry: Geometry, stuff: Collection[int] = ()
) -> Panoptic:
    """What ``panoptic_of`` answers, on the CPU; queries of one class of ``stuff`` are one segment,
    with the first one's score."""
    owner, labels = result["owner"].numpy(), result["labels"].numpy()
    numbers = np.zeros(len(labels) + 1, np.int32)  # the last: of no query
    first: dict[int, int] = {}
    chosen: list[int] = []
    for query in np.flatnonzero(result["valid"].numpy()).tolist():
        label = int(labels[query])
        if label in first:
            numbers[query] = first[label]
            continue
        chosen.append(query)
        numbers[query] = len(chosen)
        if label in stuff:
            first[label] = len(chosen)
    return Panoptic(numbers[owner], labels[chosen], result["scores"].numpy()[chosen])


def masks_of(found: Instances | Panoptic) -> np.ndarray:
    """bool [N, H, W] of either."""
    if isinstance(found, Instances):
        return found.masks
    return found.ids == np.arange(1, len(found.labels) + 1)[:, None, None]


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """float32 [N, 4] xyxy of masks bool [N, H, W] that have pixels, x2 and y2 exclusive."""
    sides = []
    for axis in (1, 2):  # whether a column, a row has any
        there = np.asarray(masks.any(axis=axis))
        low = there.argmax(axis=1)
        sides += [low, there.shape[1] - there[:, ::-1].argmax(axis=1)]
    return np.stack([sides[0], sides[2], sides[1], sides[3]], axis=1).astype(np.float32)
