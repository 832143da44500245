"""Panoptic quality against torchmetrics, and its rules on crowds and on what is not labelled."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from src.metrics.panoptic import PanopticMetric

NAMES, STUFF = ["cat", "dog", "sky", "ground"], [2, 3]


def segments(rng: np.random.Generator, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of random segments; 0: none."""
    ids = rng.integers(0, cells + 1, (6, 8)).repeat(4, 0).repeat(4, 1).astype(np.int32)
    return ids, rng.integers(0, 4, cells)


def merged(ids: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One segment for all of a class of stuff."""
    for label in STUFF:
        same = np.flatnonzero(labels == label) + 1
        if len(same):
            ids = np.where(np.isin(ids, same), same[0], ids)
    return ids, labels


def test_figures_of_torchmetrics() -> None:
    """What is found nowhere is a class of its own there, as EoMT's evaluation has it: its void of
    predictions would excuse misses, which panopticapi does not."""
    from torchmetrics.detection import PanopticQuality

    rng = np.random.default_rng(0)
    ours = PanopticMetric(NAMES, STUFF)
    theirs = PanopticQuality({0, 1}, {2, 3, 9}, return_sq_and_rq=True, return_per_class=True)
    for _ in range(12):
        ids, labels = merged(*segments(rng, 7))
        moved = np.roll(ids, rng.integers(0, 3), axis=1)
        guessed = np.where(rng.random(len(labels)) < 0.7, labels, rng.integers(0, 4, len(labels)))
        found, guessed = merged(moved, guessed)
        ours.update((found, guessed), (ids, labels))

        def pairs(ids: np.ndarray, labels: np.ndarray, none: int) -> torch.Tensor:
            kinds = np.append(labels, none)[ids - 1]
            numbers = np.where(np.isin(kinds, [*STUFF, 9]), 0, ids)
            return torch.from_numpy(np.stack([kinds, numbers], -1))[None]

        theirs.update(pairs(found, guessed, 9), pairs(ids, labels, 77))
    scores = ours.compute()
    expected = theirs.compute()[:4].numpy()
    assert 0.1 < scores.flat()["PQ"] < 0.9
    for column, values in enumerate((scores.pq, scores.sq, scores.rq)):
        np.testing.assert_allclose(values, expected[:, column], atol=1e-6)
    assert scores.flat()["PQ_stuff"] == pytest.approx(expected[2:, 0].mean(), abs=1e-6)


def test_crowds_and_unlabelled_pixels_excuse() -> None:
    truth = np.zeros((8, 8), np.int32)
    truth[:4] = 1  # a cat, and below it a crowd of dogs on the left, nothing on the right
    truth[4:, :4] = 2
    labels, crowd = np.array([0, 1]), np.array([False, True])
    found = np.zeros((8, 8), np.int32)
    found[:4], found[4:6, :4], found[6:, :4], found[4:, 4:] = 1, 2, 3, 4
    metric = PanopticMetric(NAMES, STUFF)
    metric.update((found, np.array([0, 1, 0, 2])), (truth, labels), crowd)
    scores = metric.compute()
    assert scores.right.tolist() == [1, 0, 0, 0]  # a crowd is not found
    assert scores.wrong.tolist() == [1, 0, 0, 0]  # the cat on the dogs; not the dog, nor the sky
    assert scores.missed.sum() == 0  # nor is it missed
    assert scores.pq[0] == pytest.approx(1 / 1.5) and np.isnan(scores.pq[1:]).all()
    other = PanopticMetric(NAMES, STUFF)
    other.merge(metric.state)
    other.merge(metric.state)
    assert other.compute().pq[0] == pytest.approx(1 / 1.5) and other.compute().images == 2


def test_union_leaves_out_what_is_not_labelled() -> None:
    truth, found = np.zeros((4, 4), np.int32), np.ones((4, 4), np.int32)
    truth[:2] = 1
    metric = PanopticMetric(NAMES, STUFF)
    metric.update((found, np.array([1])), (truth, np.array([1])))
    assert metric.compute().pq[1] == 1.0
