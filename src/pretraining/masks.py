"""Which patches the student does not see: blocks, filled up to an exact count (iBOT, DINOv3)."""

from __future__ import annotations

import math

import numpy as np

LEAST_BLOCK = 4  # patches
ASPECT = (0.3, 1 / 0.3)
TRIES = 10


def batch_masks(
    crops: int,
    grid: tuple[int, int],
    rng: np.random.Generator,
    *,
    ratios: tuple[float, float] = (0.1, 0.5),
    share: float = 0.5,
) -> np.ndarray:
    """bool [crops, h * w]: ``share`` of the crops are masked, the i-th of them by the i-th of
    evenly spaced ratios above ratios[0] up to ratios[1], in random order."""
    patches = grid[0] * grid[1]
    masked = int(crops * share)
    # float32, as torch.linspace: the counts are cut to whole patches, where rounding shows
    steps = np.linspace(*ratios, masked + 1, dtype=np.float32)[1:]
    counts = [int(np.float32(patches) * step) for step in steps] + [0] * (crops - masked)
    masks = np.stack([block_mask(grid, count, rng).ravel() for count in counts])
    return masks[rng.permutation(crops)]


def block_mask(grid: tuple[int, int], count: int, rng: np.random.Generator) -> np.ndarray:
    """bool [h, w] with exactly ``count`` True: rectangles as long as they fit, then single
    patches (BEiT's blocks, https://arxiv.org/abs/2106.08254)."""
    mask = np.zeros(grid, bool)
    while (left := count - int(mask.sum())) > 0 and _add_block(mask, left, rng):
        pass
    free = np.flatnonzero(~mask)
    chosen = rng.choice(free, count - int(mask.sum()), replace=False)
    mask.ravel()[chosen] = True
    return mask


def _add_block(mask: np.ndarray, most: int, rng: np.random.Generator) -> bool:
    """Mask a rectangle that adds 1 to ``most`` patches; False when none was found."""
    height, width = mask.shape
    for _ in range(TRIES):
        area = rng.uniform(min(LEAST_BLOCK, most), most)
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if not (0 < h < height and 0 < w < width):
            continue
        top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
        block = mask[top : top + h, left : left + w]
        if 0 < h * w - int(block.sum()) <= most:
            block[:] = True
            return True
    return False
