"""recall@k and mAP against values by hand, and the figures of chance against chance."""

from __future__ import annotations

import numpy as np
import pytest

from src.metrics.retrieval import ranks_of, retrieval_scores


def test_values_by_hand():
    gallery = np.eye(4, dtype=np.float32)
    query = np.array([[0.9, 0.8, 0.7, 0.6]], np.float32)  # ranks the gallery 0, 1, 2, 3
    scores = retrieval_scores(query, np.array([7]), gallery, np.array([1, 7, 2, 7]), (1, 2, 4))
    assert scores.recall == {1: 0, 2: 1, 4: 1}
    assert scores.mean_ap == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert scores.chance_recall[1] == pytest.approx(0.5)
    assert scores.chance_recall[2] == pytest.approx(1 - 2 / 4 * 1 / 3)
    assert scores.queries == 1 and scores.alone == 0


def test_leave_one_out_never_finds_itself_and_counts_who_is_alone():
    vectors = np.array([[1, 0], [0.99, 0.1], [0, 1]], np.float32)
    labels = np.array([0, 1, 0])
    scores = retrieval_scores(vectors, labels, vectors, labels, (1,), leave_one_out=True, block=2)
    assert scores.recall[1] == 0  # 0's nearest is 1; 2's nearest is 1
    assert scores.alone == 1 and scores.queries == 2
    assert scores.mean_ap == pytest.approx(0.5)


def test_vectors_that_say_nothing_score_what_chance_gives():
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], [200, 100, 40])  # sorted by class, as folders are
    for vectors in (np.ones((340, 8), np.float32), rng.normal(size=(340, 8)).astype(np.float32)):
        scores = retrieval_scores(vectors, labels, vectors, labels, (1, 5), leave_one_out=True)
        assert scores.recall[1] == pytest.approx(scores.chance_recall[1], abs=0.1)
        assert scores.mean_ap == pytest.approx(scores.chance_mean_ap, abs=0.03)
    assert 0.4 < scores.chance_mean_ap < 0.5


def test_ranks_are_those_of_a_whole_sort():
    rng = np.random.default_rng(0)
    for right, wrong in ((7, 60), (1, 5), (3, 0), (0, 4)):
        scores = rng.permutation(right + wrong).astype(np.float32)
        order = np.argsort(-scores)
        wanted = np.flatnonzero(order < right) + 1
        np.testing.assert_array_equal(ranks_of(scores[:right], scores[right:], rng), wanted)


def test_equal_scores_come_in_every_order():
    rng = np.random.default_rng(0)
    right, wrong = np.array([1.0, 2, 1]), np.array([1.0, 3, 1, 0])
    found = np.array([ranks_of(right, wrong, rng) for _ in range(6000)])
    assert (found[:, 0] == 2).all()  # behind the 3
    pairs = {tuple(row) for row in found[:, 1:].tolist()}
    assert pairs == {(a, b) for a in range(3, 7) for b in range(a + 1, 7)}
    shares = [(found[:, 1:] == [a, b]).all(1).mean() for a, b in sorted(pairs)]
    assert max(abs(share - 1 / 6) for share in shares) < 0.02


def test_a_querys_right_answers_are_sorted_and_not_the_gallery():
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 40
    gallery = rng.normal(size=(400, 8)).astype(np.float32).view(Sorted)
    Sorted.longest = 0
    retrieval_scores(gallery, labels, gallery, labels, leave_one_out=True)
    assert 0 < Sorted.longest <= 10


class Sorted(np.ndarray):
    """Vectors that remember the longest array that was sorted along the way."""

    longest = 0

    def __array_function__(self, function, types, args, kwargs):
        if function in (np.sort, np.argsort, np.lexsort, np.unique, np.partition):
            Sorted.longest = max(Sorted.longest, np.asarray(args[0]).shape[-1])
        return super().__array_function__(function, types, args, kwargs)
