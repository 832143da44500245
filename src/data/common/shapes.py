"""Of which shape the model's input will be, before an image is read: batches are made of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ...core.errors import UserError
from ...core.structures import ResizeMode, Size
from .images import fitted_size, image_size_of

Pair = tuple[int, int]  # (height, width)

# Width to height of photographs (1:1, 4:3, 3:2, 16:9, 2:1, and upright).
RATIOS = ((1, 2), (9, 16), (2, 3), (3, 4), (1, 1), (4, 3), (3, 2), (16, 9), (2, 1))
_LARGE = 5040  # an image of these ratios without rounding


def few_shapes(size: Size, mode: ResizeMode, divisor: int, spread: float = 0.0) -> list[Pair]:
    """The inputs that images of usual ratios become at this size (and the whole of it), their
    sides multiples of ``divisor``, smallest first: at most ten. spread: also at 1 - spread and
    1 + spread times the size (--multi-scale)."""
    sizes = []
    for scale in {1 - spread, 1.0, 1 + spread}:
        whole = Size(*(round(side * scale) for side in size))
        photos = (Size(_LARGE * wide // high, _LARGE) for wide, high in RATIOS)
        sizes += [whole, *(fitted_size(photo, whole, mode) for photo in photos)]
    rounded = {
        (-(-one.height // divisor) * divisor, -(-one.width // divisor) * divisor) for one in sizes
    }
    return sorted(rounded, key=lambda shape: (shape[0] * shape[1], shape))


def fix_shapes(model: Any, size: Size, mode: ResizeMode, device: Any, spread: float = 0.0) -> None:
    """On CUDA a handful of input shapes for a FeatureModel: a new one costs there (cuDNN, which
    then looks for the fastest kernels of each, torch.compile, graphs). device: a torch.device;
    spread: see ``few_shapes``."""
    if device.type != "cuda":
        return
    import torch

    model.canvases = few_shapes(size, mode, model.divisor, spread)
    torch.backends.cudnn.benchmark = mode != "short"  # whose images have any length


def input_shapes(
    records: Sequence[Any], transform: Any, canvas: Callable[[int, int], Pair]
) -> list[Pair]:
    """What each record's image is padded to: ``canvas`` of the size that ``transform`` makes of it.

    Sizes come from the records where they know them, else from the headers of the files, and only
    when the transform's result depends on them.
    """

    def shape_of(record: Any) -> Pair:
        try:
            original = getattr(record, "size", None) or image_size_of(record.image)
        except UserError:  # told when it is read
            original = transform.size
        out = transform.output_size(original)
        return canvas(out.height, out.width)

    first, other = (transform.output_size(Size(*one)) for one in ((30, 50), (50, 30)))
    if first == other:
        return [canvas(first.height, first.width)] * len(records)
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(shape_of, records))
