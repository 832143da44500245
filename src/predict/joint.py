"""Several models on the same images as one predictor: what they share is done once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backbones.batching import FeatureModel, SharedImages
from ..backbones.one_pass import share_passes
from ..core.errors import UserError
from ..core.structures import Size
from ..data.common.images import fitted_size
from ..engine.precision import arithmetic
from .predictor import Predictor, Prepared

log = logging.getLogger(__name__)


@dataclass
class PreparedParts:
    """A batch, resized once for each size that is asked for.

    parts: (the members that look at it, the resized images); geometries: of each image, one a
    member.
    """

    parts: list[tuple[list[int], Prepared]]
    geometries: list[tuple[Any, ...]]

    def __len__(self) -> int:
        return len(self.geometries)


class JointPredictor(Predictor[tuple[Any, ...]]):
    """Predictors on the same device as one, whose answer to an image is a tuple of theirs, bit for
    bit what each says of the same batch by itself.

    Images are resized once for each resized size; members whose backbones are one hub model
    (``frozen.one_backbone``) and whose inputs are the same share its pass.
    """

    def __init__(self, members: Sequence[Predictor[Any]], names: Sequence[str]) -> None:
        first = members[0]
        self.members, self.names = list(members), list(names)
        self.device, self.dtype = first.device, first.dtype
        self.batch = min(member.batch for member in members)
        self.image_size = max((member.image_size for member in members), key=lambda s: s[0] * s[1])
        self._told = False
        with arithmetic(self.dtype, self.device):
            self.passes = share_passes([_model_of(member) for member in members])

    @property
    def channels(self) -> int:
        """See Predictor; UserError where the models want different ones."""
        found = {member.channels for member in self.members}
        if len(found) > 1:
            raise UserError(f"the models want images of {sorted(found)} channels: run them apart")
        return found.pop()

    @property
    def lanes(self) -> int:
        """See Predictor."""
        return min(member.lanes for member in self.members)

    def _resized(self, member: Predictor[Any], own: Size) -> tuple[Any, ...]:
        """What a member's resized image is known by: its size, and whether it is cut out."""
        if member.resize is None:
            return own, False
        return fitted_size(own, member.image_size, member.resize), member.resize == "crop"

    def shape_of(self, original: Size) -> Any:
        """The padded input of each member."""
        return tuple(member.shape_of(original) for member in self.members)

    def groups(self, original: Size) -> list[list[int]]:
        """Members that share a pass on images of this size, by their places."""
        found: dict[Any, list[int]] = {}
        for index, member in enumerate(self.members):
            model = _model_of(member)
            backbone = model.backbone
            resized, cut = self._resized(member, original)
            high, wide = member.shape_of(original)
            moved = model.centred and (wide, high) != resized  # to the middle: a batch of its own
            image = (resized, cut, high, wide, index if moved else -1)
            key = (id(backbone.hub_model), backbone.statistics, image)
            found.setdefault(key, []).append(index)
        return list(found.values())

    def tell(self, original: Size) -> None:
        """Log which members share a pass."""
        groups = self.groups(original)
        passes = "pass" if len(groups) == 1 else "passes"
        counts = *original, len(groups), passes, len(self.members)
        log.info("%dx%d: %d backbone %s for %d models", *counts)
        for group in groups:
            height, width = self.members[group[0]].shape_of(original)
            names = ", ".join(self.names[index] for index in group)
            backbone = _model_of(self.members[group[0]]).backbone.name
            log.info("  %s at %dx%d: %s", backbone, width, height, names)

    def prepare(self, images: Sequence[np.ndarray]) -> Any:
        """Resize images once for each size (see PreparedParts)."""
        sizes = [Size(image.shape[1], image.shape[0]) for image in images]
        if sizes and not self._told:
            self._told = True
            self.tell(sizes[0])
        groups: dict[Any, list[int]] = {}
        for index, member in enumerate(self.members):
            key = tuple(self._resized(member, size) for size in sizes)
            groups.setdefault(key, []).append(index)
        parts = [(group, self.members[group[0]].prepare(images)) for group in groups.values()]
        by_member = {index: part.geometries for group, part in parts for index in group}
        geometries = [by_member[index] for index in range(len(self.members))]
        return PreparedParts(parts, list(zip(*geometries)))

    def run(self, batch: Any) -> list[Any]:
        """See Predictor."""
        found: dict[int, list[Any]] = {}
        for group, part in batch.parts:
            pixels = part.pixels.to(self.device, non_blocking=True)
            images = SharedImages(part.views(pixels))
            for index in group:
                found[index] = self.members[index].answers(images, part.geometries)
        for one in self.passes:
            one.forget()
        return list(zip(*(found[index] for index in range(len(self.members)))))

    def finish(self, result: Any, geometry: Any) -> tuple[Any, ...]:
        """See Predictor."""
        return tuple(
            member.finish(one, own) for member, one, own in zip(self.members, result, geometry)
        )


def _model_of(member: Predictor[Any]) -> FeatureModel:
    return next(m for m in member.model.modules() if isinstance(m, FeatureModel))
