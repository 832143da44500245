"""J and F against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from src.metrics.video_segmentation import boundary, boundary_f, region_iou, video_scores


def square(x: int, y: int = 20, side: int = 40, shape=(100, 120)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_region():
    assert region_iou(square(20), square(20)) == 1
    assert region_iou(square(20), square(40)) == pytest.approx(20 / 60)
    assert region_iou(square(0), square(60)) == 0
    empty = np.zeros((100, 120), bool)
    assert region_iou(empty, empty) == 1 and region_iou(empty, square(20)) == 0
    assert region_iou(square(20), square(40), void=square(60)) == pytest.approx(20 / 40)


def test_boundary_is_one_pixel_wide():
    edge = boundary(square(20))
    assert edge.sum() == 4 * 40  # the outline of 41 x 41: half a pixel out on two sides
    assert not edge[25:55, 25:55].any()


def test_boundary_f():
    # 0.008 of the diagonal of 100 x 120 (156.2) is 1.25: within 2 pixels is right.
    assert boundary_f(square(20), square(20)) == 1
    assert boundary_f(square(20), square(22)) == 1
    moved = boundary_f(square(20), square(30))
    # Of each outline the two sides along the movement still meet, but for what sticks out.
    ours, theirs = boundary(square(20)), boundary(square(30))
    right = sum(
        1 for y, x in zip(*np.nonzero(ours))
        if any(
            theirs[y + dy, x + dx]
            for dy in range(-2, 3) for dx in range(-2, 3) if dy * dy + dx * dx <= 4
        )
    )  # fmt: skip
    assert moved == pytest.approx(right / ours.sum())
    empty = np.zeros((100, 120), bool)
    assert boundary_f(empty, empty) == 1
    assert boundary_f(empty, square(20)) == 0 == boundary_f(square(20), empty)


def test_a_video_of_two_objects():
    truth = np.stack([square(20) * 1 + square(70) * 2] * 4).astype(np.uint8)
    predicted = truth.copy()
    predicted[2:][predicted[2:] == 2] = 0  # the second is lost half way
    scores = video_scores(predicted, truth)
    assert scores.objects[1].j == scores.objects[1].f == 1
    assert scores.objects[2].j == 0.5 and scores.objects[2].j_recall == 0.5
    assert (scores.j, scores.f, scores.jf) == (0.75, 0.75, 0.75)


def test_void_does_not_count():
    truth = np.stack([square(20)]).astype(np.uint8)
    predicted = np.stack([square(20) | square(60)]).astype(np.uint8)
    assert video_scores(predicted, truth).j == 0.5
    truth[0, 20:60, 60:100] = 255
    assert video_scores(predicted, truth).j == 1
