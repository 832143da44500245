"""Masks and schedules against Meta's; parameter groups by the names of Meta's files."""

from __future__ import annotations

import numpy as np
import pytest

from src.pretraining.masks import batch_masks, block_mask
from src.pretraining.schedules import cosine_schedule, warm_cosine_flat
from tests.pretraining import reference
from tests.pretraining.reference import needs_reference


@pytest.fixture(scope="module")
def meta():
    return reference.load()


@needs_reference
@pytest.mark.parametrize("side", [4, 6, 14])
def test_counts_of_masked_patches(meta, side):
    masks = batch_masks(64, (side, side), np.random.default_rng(0))
    assert sorted(masks.sum(axis=1)) == meta[f"mask_counts_{side}"].tolist()


@pytest.mark.parametrize("grid", [(4, 4), (2, 2), (7, 5), (16, 16)])
def test_masks_are_exact_and_reproducible(grid):
    for count in (0, 1, grid[0] * grid[1] // 2, grid[0] * grid[1]):
        mask = block_mask(grid, count, np.random.default_rng(3))
        assert mask.shape == grid and mask.sum() == count
        assert (mask == block_mask(grid, count, np.random.default_rng(3))).all()


def test_masks_are_blocks():
    """Masked patches have far more masked neighbours than if they were strewn."""
    rng = np.random.default_rng(0)
    masks = [block_mask((16, 16), 77, rng) for _ in range(20)]
    beside = np.mean([(m[:, 1:] & m[:, :-1]).sum() / m.sum() for m in masks])
    assert beside > 0.55  # strewn: 0.28


STEPS, WARM = 1000, 100
CURVES = {
    "v1_lr": cosine_schedule(1e-3, 1e-6, STEPS, warmup=WARM),
    "v1_weight_decay": cosine_schedule(0.04, 0.4, STEPS),
    "v1_momentum": cosine_schedule(0.992, 1, STEPS),
    "v1_teacher_temp": cosine_schedule(0.07, 0.07, 300, warmup=300, start=0.04),
    "v1_lr_trunc_0.25": cosine_schedule(1e-3, 1e-6, STEPS, warmup=WARM, extra=0.25),
    "v2_lr": warm_cosine_flat(0, 1e-3, 1e-6, warmup=WARM, falling=STEPS - WARM),
    "v2_lr_cosine_50": warm_cosine_flat(0, 1e-3, 1e-6, warmup=WARM, falling=500),
    "v2_teacher_temp": warm_cosine_flat(0.04, 0.07, 0.07, warmup=300, falling=STEPS - 300),
}


@needs_reference
@pytest.mark.parametrize("name", CURVES)
def test_schedules(meta, name):
    values = [CURVES[name](step) for step in range(STEPS)]
    np.testing.assert_allclose(values, meta[name], rtol=1e-9, atol=1e-12)


def test_schedules_hold_their_end():
    assert CURVES["v1_lr"](STEPS + 5) == 1e-6
    assert CURVES["v2_lr"](STEPS + 5) == 1e-6
