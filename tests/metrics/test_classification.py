"""Figures of classification, against scikit-learn's and torchmetrics'."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from src.metrics.classification import ClassificationMetric, average_precision

NAMES = [f"class {i}" for i in range(7)]


def drawn(count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that lean towards the truth; class 6 never occurs."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 6, count)
    logits = rng.normal(size=(count, 7)) * 1.5
    logits[np.arange(count), truth] += 1.2
    logits[:, 6] -= 20
    odds = np.exp(logits)
    return odds / odds.sum(axis=1, keepdims=True), truth


def scores_of(probabilities, truth, multi=False, parts=3):
    """Through as many metrics as there are parts, merged."""
    metrics = []
    pieces = zip(np.array_split(probabilities, parts), np.array_split(truth, parts))
    for some, their in pieces:
        metrics.append(ClassificationMetric(NAMES, multi))
        metrics[-1].update(some, their)
    for other in metrics[1:]:
        metrics[0].merge(other.state())
    return metrics[0].compute()


def test_single_label_equals_sklearn():
    probabilities, truth = drawn()
    scores = scores_of(probabilities, truth)
    said = probabilities.argmax(axis=1)
    assert scores.top1 == pytest.approx(reference.accuracy_score(truth, said), abs=1e-9)
    top5 = reference.top_k_accuracy_score(truth, probabilities, k=5, labels=np.arange(7))
    assert scores.top5 == pytest.approx(top5, abs=1e-9)
    assert "top5" in scores.flat()
    figures = reference.precision_recall_fscore_support(
        truth, said, labels=np.arange(6), zero_division=0
    )
    for ours, theirs in zip((scores.precision, scores.recall, scores.f1, scores.support), figures):
        np.testing.assert_allclose(ours[:6], theirs, atol=1e-9)
    assert np.isnan(scores.f1[6]) and scores.flat()["macro_F1"] == pytest.approx(figures[2].mean())
    matrix = reference.confusion_matrix(truth, said, labels=np.arange(7))
    assert (scores.confusion == matrix).all()


def test_calibration_equals_torchmetrics():
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional.classification")
    probabilities, truth = drawn(seed=1)
    theirs = functional.multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(truth), num_classes=7, n_bins=15
    )
    scores = scores_of(probabilities, truth)
    assert scores.reliability.ece == pytest.approx(float(theirs), abs=1e-6)
    assert scores.reliability.counts.sum() == len(truth)
    empty = scores.reliability.counts == 0
    assert (np.isnan(scores.reliability.accuracy) == empty).all()


def test_multi_label_equals_sklearn():
    rng = np.random.default_rng(2)
    truth = (rng.random((300, 7)) < 0.3).astype(int)
    truth[:, 6] = 0
    probabilities = (rng.random((300, 7)) * 0.7 + truth * 0.3).round(2)  # with ties
    scores = scores_of(probabilities, truth, multi=True)
    said = probabilities >= 0.5
    figures = reference.precision_recall_fscore_support(truth, said, zero_division=0)
    np.testing.assert_allclose(scores.precision, figures[0], atol=1e-9)
    np.testing.assert_allclose(scores.recall, figures[1], atol=1e-9)
    np.testing.assert_allclose(scores.f1, figures[2], atol=1e-9)
    theirs = reference.average_precision_score(truth[:, :6], probabilities[:, :6], average=None)
    assert scores.average_precision is not None
    np.testing.assert_allclose(scores.average_precision[:6], theirs, atol=1e-6)
    assert np.isnan(scores.average_precision[6])
    assert scores.flat()["mAP"] == pytest.approx(theirs.mean())
    np.testing.assert_array_equal(
        scores.outcomes, reference.multilabel_confusion_matrix(truth, said)
    )
    per_class = list(scores.as_dict()["per_class"].values())
    assert [one["confusion"] for one in per_class] == scores.outcomes.tolist()
    assert scores.confusion is None and "top1" not in scores.flat()


def test_average_precision_of_a_known_ranking():
    assert average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True])) == (
        pytest.approx((1 + 2 / 3) / 2)
    )


def test_plain_values_and_table():
    probabilities, truth = drawn()
    scores = scores_of(probabilities, truth)
    plain = scores.as_dict()
    assert plain["per_class"]["class 6"]["F1"] is None
    assert sum(plain["reliability"]["counts"]) == len(truth)
    assert "class 3" in scores.table() and len(scores.table(most=2).splitlines()) == 4
