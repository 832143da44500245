"""Which patches look like the patch at a point: cosines of patch features as a heat map."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.errors import UserError
from ..core.structures import Size
from ..data.common.images import image_size_of, list_images, read_image
from ..predict.capture import VideoReader
from .draw import contact_sheet
from .overlay import heat_overlay, mark_point
from .patches import patch_predictor
from .runs import render_source
from .settings import SimilarityPictureOptions


def check_point(x: float, y: float, size: Size, where: object) -> None:
    """UserError when the point is outside of an image of this size."""
    if not (0 <= x < size.width and 0 <= y < size.height):
        raise UserError(
            f"--at {x:g},{y:g} is outside of {where}, which is {size.width}x{size.height} pixels: "
            f"x from 0 to {size.width - 1}, y from 0 to {size.height - 1}"
        )


def cell_at(x: float, y: float, size: Size, patch_map: Tensor) -> tuple[int, int]:
    """(row, column) of the patch that the point of the original image lies in."""
    h, w = patch_map.shape[-2:]
    return min(h - 1, int(y * h / size.height)), min(w - 1, int(x * w / size.width))


def patch_at(x: float, y: float, size: Size, patch_map: Tensor) -> Tensor:
    """Its feature: [C, h, w] -> [C]."""
    row, column = cell_at(x, y, size, patch_map)
    return patch_map[:, row, column]


def similarity_map(query: Tensor, patch_map: Tensor) -> Tensor:
    """Cosine of a feature [C] with every patch of [C, h, w] -> [h, w] in -1..1."""
    return torch.einsum("c,chw->hw", F.normalize(query, dim=0), F.normalize(patch_map, dim=0))


def _size(image: np.ndarray) -> Size:
    return Size(image.shape[1], image.shape[0])


def run_similarity_pictures(options: SimilarityPictureOptions) -> int:
    """The command: ``<stem>_similarity.png`` for each image, or an .mp4. Returns the exit code.

    The colours go from the least cosine of a picture (of a video: of its first frame) to 1.
    """
    from ..core.paths import output_folder

    x, y = options.point
    reference = _reference(options)
    if reference is None:
        for path in list_images(options.input):
            try:
                size = image_size_of(path)
            except UserError:
                continue  # it is reported when its picture is made
            check_point(x, y, size, path)
    predictor = patch_predictor(options)
    query = None
    if reference is not None:
        query = patch_at(x, y, _size(reference), predictor.predict([reference])[0])
    lows: list[float] = []

    def render(image: np.ndarray, patch_map: Tensor) -> np.ndarray:
        own = patch_at(x, y, _size(image), patch_map) if query is None else query
        values = similarity_map(own, patch_map).numpy()
        lows.append(float(values.min()))
        low = lows[0] if options.video else lows[-1]
        return _sheet(image, reference, values, low, (x, y))

    folder = output_folder(options.out_dir)
    return render_source(predictor, options, folder, "similarity", render)


def _reference(options: SimilarityPictureOptions) -> np.ndarray | None:
    """The image that the point lies in, when it is one for all. Raises UserError."""
    source: object = options.reference or options.video
    if options.reference is not None:
        image = read_image(options.reference)
    elif options.video is not None:
        image = VideoReader(options.video).first_image
    else:
        return None
    check_point(*options.point, _size(image), source)
    return image


def _sheet(
    image: np.ndarray,
    reference: np.ndarray | None,
    values: np.ndarray,
    low: float,
    at: tuple[float, float],
) -> np.ndarray:
    heat = heat_overlay(image, values, low, 1.0)
    caption = f"cosine {values.min():.2f} to {values.max():.2f}"
    if reference is None:
        return contact_sheet([mark_point(image, *at), mark_point(heat, *at)], 2, ["", caption])
    return contact_sheet(
        [mark_point(reference, *at), image, heat], 3, ["reference", "image", caption]
    )
