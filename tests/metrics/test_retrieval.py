"""recall@k and mAP against values by hand, and the figures of chance against chance."""

from __future__ import annotations

import numpy as np
import pytest

from src.metrics.retrieval import retrieval_scores


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
