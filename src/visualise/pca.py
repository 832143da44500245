"""Principal components of patch features as colours: for an image, many images, a video.

After the pictures of DINOv2 (https://arxiv.org/abs/2304.07193, figure 1): the first component
separates foreground from background, the next fit of the foreground patches gives the colours.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UserError
from ..data.common.images import list_images, read_image
from ..predict.capture import VideoReader
from ..predict.predictor import Predictor
from .draw import contact_sheet
from .overlay import to_pixels
from .patches import patch_predictor
from .runs import Render, render_images, render_source
from .samples import spread
from .settings import PcaOptions

log = logging.getLogger(__name__)

MARGIN = 0.02  # this share of the patches may be darker than 0, or brighter than 255


def principal_axes(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """[N, C] -> mean [C] and orthonormal axes [C, count], the largest variance first.

    By the eigenvectors of the covariance, in float64: the same on every run; the largest entry
    of each axis is positive, so that colours do not flip.
    """
    x = features.double()
    mean = x.mean(0)
    x = x - mean
    _, vectors = torch.linalg.eigh(x.T @ x / max(1, len(x) - 1))
    axes = vectors[:, -count:].flip(1)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return mean.float(), (axes * largest.sign()).float()


@dataclass(frozen=True)
class PatchProjection:
    """Patch features -> colours, the same for every image it is used on.

    mean [C], axes [C, 3]; low, high [3]: values that become 0 and 255; side: (mean [C], axis
    [C], threshold) of the foreground, whose patches lie above the threshold, or None.
    """

    mean: Tensor
    axes: Tensor
    low: Tensor
    high: Tensor
    side: tuple[Tensor, Tensor, float] | None = None

    def colours(self, patch_map: Tensor) -> np.ndarray:
        """[C, h, w] -> float32 [h, w, 3] in 0..1."""
        values = (patch_map.permute(1, 2, 0) - self.mean) @ self.axes
        return ((values - self.low) / (self.high - self.low)).clamp(0, 1).numpy()

    def score(self, patch_map: Tensor) -> np.ndarray | None:
        """[C, h, w] -> float32 [h, w], above 0 in the foreground; None without one."""
        if self.side is None:
            return None
        mean, axis, threshold = self.side
        return ((patch_map.permute(1, 2, 0) - mean) @ axis - threshold).numpy()

    def picture(self, patch_map: Tensor, height: int, width: int) -> np.ndarray:
        """[C, h, w] -> RGB uint8 [height, width, 3], the background black."""
        rgb = (to_pixels(self.colours(patch_map), height, width) * 255).round().astype(np.uint8)
        score = self.score(patch_map)
        if score is not None:
            rgb[to_pixels(score, height, width) <= 0] = 0
        return rgb


def _flat(maps: Sequence[Tensor]) -> Tensor:
    return torch.cat([m.flatten(1).T for m in maps])


def otsu(values: np.ndarray) -> float:
    """The threshold that parts values into two groups with the least variance within them.

    N. Otsu, A threshold selection method from gray-level histograms, 1979.
    """
    ordered = np.sort(values.astype(np.float64))
    count = len(ordered)
    if count < 2:
        return float(ordered[0]) - 1
    left = np.arange(1, count)
    sums = np.cumsum(ordered)
    gap = sums[:-1] / left - (sums[-1] - sums[:-1]) / (count - left)
    split = int(np.argmax(left * (count - left) * gap**2))
    return float(ordered[split : split + 2].mean())


def _find_side(maps: Sequence[Tensor], invert: bool) -> tuple[Tensor, Tensor, float]:
    """The first component and its threshold; its sign so that the foreground is above it."""
    mean, axes = principal_axes(_flat(maps), 1)
    axis = axes[:, 0]
    threshold = otsu(((_flat(maps) - mean) @ axis).numpy())
    above = [((m.permute(1, 2, 0) - mean) @ axis > threshold).float() for m in maps]
    edges = torch.cat([torch.cat([a[0], a[-1], a[:, 0], a[:, -1]]) for a in above]).mean()
    inside = torch.cat([a.flatten() for a in above]).mean()
    # The background is the side that the edges of the images show more of than the whole does.
    if (edges > inside) != invert:
        axis, threshold = -axis, -threshold
    return mean, axis, threshold


def fit_projection(maps: Sequence[Tensor], foreground: str = "off") -> PatchProjection:
    """A projection of one or many patch maps [C, h, w].

    foreground: "off", "auto" or "invert" as in the settings; colours are then fitted to its
    patches alone. Raises UserError for fewer than 4 patches.
    """
    features = _flat(maps)
    side = None if foreground == "off" else _find_side(maps, foreground == "invert")
    if side is not None:
        mean, axis, threshold = side
        features = features[(features - mean) @ axis > threshold]
    if len(features) < 4:
        raise UserError(
            f"only {len(features)} patches for 3 components; raise --imgsz"
            + (", or use --foreground off" if side is not None else "")
        )
    mean, axes = principal_axes(features, 3)
    values = (features - mean) @ axes
    low = torch.quantile(values[:: max(1, len(values) // 100_000)], MARGIN, dim=0)
    high = torch.quantile(values[:: max(1, len(values) // 100_000)], 1 - MARGIN, dim=0)
    return PatchProjection(mean, axes, low, torch.maximum(high, low + 1e-6), side)


def fit_on_images(
    predictor: Predictor[Tensor], paths: Sequence[Path], options: PcaOptions
) -> PatchProjection:
    """The shared projection of images, of ``--fit-on`` of them spread over the list."""
    maps: list[Tensor] = []
    for index in spread(len(paths), options.fit_on):
        try:
            image = read_image(paths[index])
        except UserError:
            continue  # it is reported when its picture is made
        maps += predictor.predict([image])
    if not maps:
        raise UserError(f"none of the images of {' '.join(options.input)} can be read")
    return fit_projection(maps, options.foreground)


def fit_on_video(predictor: Predictor[Tensor], options: PcaOptions) -> PatchProjection:
    """The projection of frames spread over a video (of its first ones, when it has no end)."""
    assert options.video is not None
    reader = VideoReader(options.video)
    total = min(n for n in (reader.frames, options.max_frames, 100_000) if n is not None)
    if reader.live or reader.frames is None:
        total = min(total, options.fit_on)
    chosen = set(spread(total, options.fit_on))
    images = [f.image for f in islice(reader, total) if f.number in chosen]
    return fit_projection(predictor.predict(images), options.foreground)


def _render(projection: PatchProjection | None, foreground: str) -> Render:
    """Image and components side by side; without a projection each image gets its own."""

    def render(image: np.ndarray, patch_map: Tensor) -> np.ndarray:
        own = projection or fit_projection([patch_map], foreground)
        height, width = image.shape[:2]
        return contact_sheet([image, own.picture(patch_map, height, width)], 2)

    return render


def run_pca(options: PcaOptions) -> int:
    """The command: ``<stem>_pca.png`` for each image, or an .mp4. Returns the exit code."""
    from ..core.paths import output_folder

    folder = output_folder(options.out_dir)
    if options.video is not None:
        VideoReader(options.video)  # a bad source is told before the backbone is loaded
        predictor = patch_predictor(options)
        render = _render(fit_on_video(predictor, options), options.foreground)
        return render_source(predictor, options, folder, "pca", render)
    paths = list_images(options.input)
    predictor = patch_predictor(options)
    projection = fit_on_images(predictor, paths, options) if options.shared else None
    render = _render(projection, options.foreground)
    return render_images(predictor, paths, folder, "pca.png", render)
