"""Images of several sizes as one batch for a backbone, and its maps as one batch for a head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import UserError
from .base import Backbone

if TYPE_CHECKING:
    from typing_extensions import TypeIs

T = TypeVar("T")
Pair = tuple[int, int]


@dataclass(frozen=True)
class ImageFeatures:
    """What a backbone says of one image: models take it in place of the image.

    values: by name, maps [C, h, w] or vectors [D]; size: (h, w) of the image.
    """

    values: dict[str, Tensor]
    size: Pair

    def to(self, device: torch.device | str) -> ImageFeatures:
        """The same on a device."""
        return replace(self, values={name: value.to(device) for name, value in self.values.items()})


Images = Sequence[Tensor] | Tensor  # [3, h, w] each, or [B, 3, H, W]; uint8 or float in [0, 1]
Inputs = Images | Sequence[ImageFeatures]


class SharedImages(list[Tensor]):
    """Images [3, h, w] that several models look at, all of them on one canvas: what is the same
    batch for two models is one tensor (``one_pass.OnePass`` knows it again)."""

    def __init__(self, images: Sequence[Tensor]) -> None:
        super().__init__(images)
        self._batches: dict[Any, tuple[Tensor, list[Pair]]] = {}

    def joined(self, backbone: Backbone, canvas: Pair) -> tuple[Tensor, list[Pair]]:
        """See ``join_images``."""
        key = (canvas, backbone.statistics)
        if key not in self._batches:
            self._batches[key] = join_images(list(self), backbone.normalise, canvas)
        return self._batches[key]


@dataclass(frozen=True)
class FeatureMaps:
    """Maps of several images as one batch.

    maps: {name: [B, C, h, w]}; sizes: (h, w) of each image; padded: (H, W) that the maps cover;
    centred: with the image in the middle (see FeatureModel.centred).
    """

    maps: dict[str, Tensor]
    sizes: list[Pair]
    padded: Pair
    centred: bool = False


def are_features(inputs: Inputs) -> TypeIs[Sequence[ImageFeatures]]:
    """Whether a model was handed features in place of images."""
    return not isinstance(inputs, Tensor) and isinstance(inputs[0], ImageFeatures)


def sizes_of(inputs: Inputs) -> list[Pair]:
    """(h, w) of each image."""
    if are_features(inputs):
        return [one.size for one in inputs]
    return [(image.shape[-2], image.shape[-1]) for image in inputs]


class FeatureModel(nn.Module):
    """A model on a backbone: it reads maps of images, or takes those that were kept.

    Loaders and the predictor hand it batches of images that are padded to one ``canvas``: one pass
    of the backbone. Of others, those that train the backbone go through it together, padded to the
    largest (and all do where FSDP gathers weights at each pass: ranks must have equally many);
    else only images of one canvas do, so that what it says of an image does not depend on the
    others of a batch; in training the smaller maps are then filled up, right and bottom, with what
    the backbone says of a blank image (zeros are a degenerate input to a LayerNorm, with huge
    gradients, and their own mean would look like the image).

    canvases: (H, W) to choose from, smallest first, where each new shape costs (CUDA: cuDNN,
    torch.compile, graphs); see ``data.common.shapes``. None: each image's own padded size.
    fixed: the only one there is, of a model that was exported.
    centred: in eval mode images lie in the middle of their own padded size, and what is said of
    that is stretched over the image, as by the code of Meta's dense heads (``CenterPadding`` of
    dinov2/hub/utils.py): for those of its published models.
    """

    canvases: Sequence[Pair] = ()
    fixed: Pair | None = None
    centred = False
    elsewhere = False  # whether something else answers for the layers (``answered_by``)
    compiled_parts: Sequence[str] = ("neck", "head")  # by --compile in training, if there

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self._blank: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> FeatureModel:
        """As nn.Module's."""
        self._blank = {}  # the backbone may have got other weights since
        return super().train(mode)

    @property
    def divisor(self) -> int:
        """Padded sizes are multiples of it."""
        return self.backbone.size_divisor

    def canvas(self, height: int, width: int) -> Pair:
        """(H, W) that an image is padded to, whatever the others of its batch: the smallest of
        ``canvases`` that holds it, else the next multiples of the divisor."""
        if self.fixed is not None and (height > self.fixed[0] or width > self.fixed[1]):
            raise UserError(
                f"this model was exported for images of at most {self.fixed[1]}x{self.fixed[0]}, "
                f"and one came as {width}x{height}: leave out --scales and --resize short, or "
                "export it for the size that you need (--imgsz)"
            )
        canvases = () if self.centred else self.canvases
        for high, wide in canvases if self.fixed is None else [self.fixed]:
            if high >= height and wide >= width:
                return high, wide
        return _padded([(height, width)], self.divisor)

    def read(self, batch: Tensor) -> dict[str, Tensor]:
        """What the model takes of its backbone, without parameters of its own: a normalised batch
        [B, 3, H, W] -> {name: [B, ...]}."""
        return self.backbone(batch)

    def answers(self, batch: FeatureMaps) -> dict[str, Tensor]:
        """What the model says of a batch, by name, in shapes that depend on the batch's alone."""
        raise NotImplementedError

    def of_each(self, answers: dict[str, Tensor], batch: FeatureMaps) -> Sequence[Any]:
        """What ``answers`` mean for each image, in its pixels."""
        raise NotImplementedError

    def infer(self, inputs: Inputs) -> list[Any]:
        """The answer to each image, in eval mode."""
        return self.each(inputs, lambda batch: self.of_each(self.answers(batch), batch))

    def whole(self, batch: Tensor) -> dict[str, Tensor]:
        """``answers`` to a normalised batch [B, 3, H, W]: from pixels to fixed shapes, without a
        look at values or at the images' own sizes. This is what is exported and compiled."""
        padded = (batch.shape[-2], batch.shape[-1])
        own = type(self)  # not what ``answered_by`` has put in their place
        maps = FeatureMaps(own.read(self, batch), [padded] * len(batch), padded)
        return own.answers(self, maps)

    def answered_by(self, whole: Callable[[Tensor], dict[str, Tensor]]) -> None:
        """For inference: have ``whole`` (an exported file, compiled code) do what the method of
        that name does."""
        own: Any = self
        own.read, own.answers, own.elsewhere = whole, _as_read, True

    def class_rows(self, name: str, classes: Sequence[str], value: Tensor) -> list[str] | None:
        """The class of each row of a tensor of the state dict (once an anchor where they repeat);
        None for one whose rows are no classes. classes: as the checkpoint keeps them."""
        return None

    def targets_of(self, inputs: Inputs, targets: Sequence[T] | None) -> Sequence[T]:
        """The targets; UserError unless there is one for each image."""
        if targets is None or len(targets) != len(inputs):
            raise UserError(
                f"a {type(self).__name__} in training mode needs one target an image: "
                "model(images, targets); for predictions call model.eval() first"
            )
        return targets

    def features(self, images: Images) -> list[ImageFeatures]:
        """What ``read`` makes of each image; with a frozen backbone it may be kept."""
        return self.each(images, _apart)

    def feature_maps(self, inputs: Inputs) -> FeatureMaps:
        """What ``read`` makes of images, or was kept of them, as one batch to train on."""
        tuned = self.backbone.training and not self.backbone.frozen
        if not are_features(inputs) and (tuned or self._sharded):
            return self._one_batch(inputs)
        if len({self.canvas(*size) for size in sizes_of(inputs)}) == 1:
            return self._one_batch(inputs)
        features = inputs if are_features(inputs) else self.features(inputs)
        sizes = [one.size for one in features]
        names = features[0].values
        self._blank = self._blank or self._read_blank(next(iter(features[0].values.values())))
        maps = {
            name: _joined([one.values[name] for one in features], self._blank[name])
            for name in names
        }
        return FeatureMaps(maps, sizes, self._common_canvas(sizes))

    @property
    def _sharded(self) -> bool:
        return hasattr(next(self.backbone.parameters()), "device_mesh")

    def _common_canvas(self, sizes: Sequence[Pair]) -> Pair:
        return _padded([self.canvas(*size) for size in sizes], self.divisor)

    def each(self, inputs: Inputs, answer: Callable[[FeatureMaps], Sequence[T]]) -> list[T]:
        """The answers to images, or to what was kept of them, in order; ``answer`` is asked for
        those of one canvas at once."""
        sizes = sizes_of(inputs)
        found: dict[int, T] = {}
        for rows in equal_rows([self.canvas(*size) for size in sizes]):
            part: Any = inputs if len(rows) == len(sizes) else [inputs[row] for row in rows]
            found.update(zip(rows, answer(self._one_batch(part)), strict=True))
        return [found[row] for row in range(len(sizes))]

    def _read_blank(self, like: Tensor) -> dict[str, Tensor]:
        """Of each map [C], what ``read`` says of the mean colour."""
        device = next(self.backbone.parameters()).device
        with torch.no_grad():
            found = self.read(self.backbone.blank(self.divisor).to(device))
        return {name: values[0].mean(dim=(-2, -1)).to(like) for name, values in found.items()}

    def _one_batch(self, inputs: Inputs) -> FeatureMaps:
        if are_features(inputs):
            sizes = [one.size for one in inputs]
            names = inputs[0].values
            maps = {name: torch.stack([one.values[name] for one in inputs]) for name in names}
            return FeatureMaps(maps, sizes, self._common_canvas(sizes))
        canvas = self._common_canvas(sizes_of(inputs))
        if isinstance(inputs, SharedImages):
            batch, sizes = inputs.joined(self.backbone, canvas)
        else:
            batch, sizes = join_images(inputs, self.backbone.normalise, canvas)
        centred = self.centred and not self.training
        if centred and any(size != canvas for size in sizes):
            shifts = [[(a - b) // 2 for a, b in zip(canvas, size)] for size in sizes]
            batch = torch.stack([one.roll(by, (-2, -1)) for one, by in zip(batch, shifts)])
        return FeatureMaps(self.read(batch), sizes, canvas, centred)


def _as_read(batch: FeatureMaps) -> dict[str, Tensor]:
    return batch.maps


def _apart(batch: FeatureMaps) -> list[ImageFeatures]:
    """Of each image what the batch has of it."""
    return [
        ImageFeatures({name: values[row] for name, values in batch.maps.items()}, size)
        for row, size in enumerate(batch.sizes)
    ]


def _joined(maps: Sequence[Tensor], fill: Tensor) -> Tensor:
    """Maps [C, h, w] -> [B, C, H, W]; fill: [C]."""
    height, width = (max(one.shape[axis] for one in maps) for axis in (-2, -1))
    joined = fill[:, None, None].repeat(len(maps), 1, height, width)
    for row, one in enumerate(maps):
        joined[row, :, : one.shape[-2], : one.shape[-1]] = one
    return joined


def join_images(
    images: Images, normalise: Callable[[Tensor], Tensor], canvas: Pair
) -> tuple[Tensor, list[Pair]]:
    """Images [3, h, w] (uint8 or float in [0, 1]) -> normalised [B, 3, H, W], (h, w) of each.

    canvas: (H, W), which holds them all; to the right and the bottom there are zeros (the mean
    colour). Equal sizes are stacked and normalised at once; nothing waits for the device. Images
    that lie in memory as [h, w, 3] make a batch in channels_last.
    """
    sizes = sizes_of(images)
    height, width = canvas
    if len(set(sizes)) == 1:
        batch = normalise(images if isinstance(images, Tensor) else _stacked(images))
        h, w = sizes[0]
        if (h, w) != (height, width):
            batch = F.pad(batch, (0, width - w, 0, height - h))
        return batch, sizes
    first = normalise(images[0])
    batch = first.new_zeros((len(sizes), len(first), height, width))
    if images[0].stride(0) == 1:
        batch = batch.contiguous(memory_format=torch.channels_last)
    for i, (image, (h, w)) in enumerate(zip(images, sizes)):
        batch[i, :, :h, :w] = first if i == 0 else normalise(image)
    return batch, sizes


def _stacked(images: Sequence[Tensor]) -> Tensor:
    """[3, h, w] each -> [B, 3, h, w], laid out in memory as they are."""
    if images[0].stride(0) == 1:
        return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)
    return torch.stack([*images])


def equal_rows(kinds: Sequence[Any]) -> list[list[int]]:
    """The places of equal items, in the order of their first."""
    groups: dict[Any, list[int]] = {}
    for row, kind in enumerate(kinds):
        groups.setdefault(kind, []).append(row)
    return list(groups.values())


def _padded(sizes: Sequence[Pair], divisor: int) -> Pair:
    """The least (H, W) of multiples of ``divisor`` that holds all sizes."""
    height, width = (-(-max(side) // divisor) * divisor for side in zip(*sizes))
    return height, width
