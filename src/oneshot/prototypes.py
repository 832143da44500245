"""Prototypes of objects and background, from a few images with masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional as F

from ..core.errors import UserError
from ..core.structures import IGNORE
from .masks import label_fractions

TEMPERATURE = 0.1
PURE = 0.5  # a cell belongs to what covers more than this share of it


@dataclass(frozen=True)
class Prototypes:
    """Unit vectors that stand for the background (label 0) and each object.

    centre: [C], subtracted from features before their direction is taken (it holds what all
    patches have in common); vectors: label -> [parts, C].
    """

    centre: Tensor
    vectors: dict[int, Tensor]

    @property
    def labels(self) -> list[int]:
        """The labels, 0 first."""
        return sorted(self.vectors)

    def directions(self, features: Tensor) -> Tensor:
        """[..., C] -> unit vectors from the centre."""
        return F.normalize(features - self.centre, dim=-1)

    def scores(self, patch_map: Tensor) -> Tensor:
        """[C, h, w] -> probabilities [labels, h, w]: a softmax over the best cosine of each."""
        x = self.directions(patch_map.permute(1, 2, 0))
        best = [(x @ self.vectors[label].T).amax(-1) for label in self.labels]
        return (torch.stack(best) / TEMPERATURE).softmax(0)


def _parts(features: Tensor, count: int, seed: int) -> Tensor:
    """Unit vectors [N, C] -> at most ``count`` unit centres, by k-means."""
    distinct = len(torch.unique(features, dim=0))
    if distinct <= count:
        return torch.unique(features, dim=0)
    means = KMeans(count, n_init=4, random_state=seed).fit(features.numpy())
    return F.normalize(torch.from_numpy(means.cluster_centers_).to(features.dtype), dim=1)


def cells_of(mask: np.ndarray, labels: Sequence[int], h: int, w: int) -> np.ndarray:
    """int [h, w]: the label that covers most of a cell; -1 where it is a mixture or void.

    A label too small to cover any cell gets the cell it covers most of.
    """
    covered = label_fractions(mask, list(labels), h, w)
    cells = np.where(covered.max(0) > PURE, np.array(labels)[covered.argmax(0)], -1)
    for label, plane in zip(labels, covered):
        if plane.max() > 0 and not (cells == label).any():
            cells[np.unravel_index(plane.argmax(), plane.shape)] = label
    # Beside an object, background cells that it reaches into say little of either.
    objects = covered[[i for i, label in enumerate(labels) if label > 0]].sum(0)
    cells[(cells == 0) & (objects > 0.1)] = -1
    return cells


def build_prototypes(
    maps: Sequence[Tensor],
    masks: Sequence[np.ndarray],
    *,
    parts: int = 4,
    background_parts: int = 12,
    seed: int = 0,
) -> Prototypes:
    """Prototypes of reference maps [C, h, w] and masks [H, W] (0 background, 255 void).

    Raises UserError when the masks leave no background.
    """
    present = np.unique(np.concatenate([np.unique(mask) for mask in masks]))
    labels = [0] + [int(label) for label in present if 0 < label < IGNORE]
    groups: dict[int, list[Tensor]] = {label: [] for label in labels}
    for patch_map, mask in zip(maps, masks):
        cells = torch.from_numpy(cells_of(mask, labels, *patch_map.shape[-2:]))
        for label in labels:
            groups[label].append(patch_map[:, cells == label].T)
    features = {label: torch.cat(group) for label, group in groups.items()}
    if not len(features[0]):
        raise UserError(
            "the masks cover their whole images: background is needed to tell the object from "
            "it; give a reference image that shows some"
        )
    # Objects and background weigh the same in the centre, however small the object.
    centre = torch.stack([f.mean(0) for f in (features[0], torch.cat(
        [features[label] for label in labels[1:]]
    ))]).mean(0)  # fmt: skip
    bare = Prototypes(centre, {})
    vectors = {
        label: _parts(bare.directions(found), parts if label else background_parts, seed)
        for label, found in features.items()
    }
    return Prototypes(centre, vectors)
