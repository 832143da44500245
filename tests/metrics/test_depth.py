"""Depth figures: by hand, over processes, without measured pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from src.metrics.depth import DepthMetric


def test_by_hand() -> None:
    truth = np.array([[2.0, 4.0], [0.0, 5.0]])
    found = np.array([[2.2, 6.0], [9.0, 5.0]])
    metric = DepthMetric()
    metric.update(found, truth)
    values = metric.compute().values
    assert values["RMSE"] == pytest.approx(math.sqrt((0.04 + 4 + 0) / 3))
    assert values["AbsRel"] == pytest.approx((0.1 + 0.5 + 0) / 3)
    assert values["log10"] == pytest.approx((math.log10(1.1) + math.log10(1.5)) / 3)
    logs = np.log([1.1, 1.5, 1])
    assert values["SILog"] == pytest.approx(100 * logs.std())
    assert (values["delta1"], values["delta2"], values["delta3"]) == pytest.approx((2 / 3, 1, 1))


def test_images_weigh_alike_and_processes_join() -> None:
    rng = np.random.default_rng(0)
    truths = [rng.uniform(1, 9, (8, 8)) for _ in range(4)]
    truths[1][:7] = 0
    truths.append(np.zeros((8, 8)))
    founds = [rng.uniform(1, 9, (8, 8)) for _ in truths]
    alone, *parts = DepthMetric(), DepthMetric(), DepthMetric()
    for i, (found, truth) in enumerate(zip(founds, truths)):
        alone.update(found, truth)
        parts[i % 2].update(found, truth)
    parts[0].merge(parts[1].state())
    together, scores = parts[0].compute(), alone.compute()
    assert together.flat() == pytest.approx(scores.flat()) and scores.images == 4
    single = []
    for found, truth in zip(founds[:4], truths):
        known = truth > 0
        single.append(np.sqrt(np.mean((found - truth)[known] ** 2)))
    assert scores.values["RMSE"] == pytest.approx(np.mean(single))


def test_the_mean_predictor_is_what_it_says() -> None:
    rng = np.random.default_rng(1)
    truths = [rng.uniform(1, 9, (8, 8)) for _ in range(3)]
    middle = np.mean(truths)
    metric = DepthMetric()
    for truth in truths:
        metric.update(np.full_like(truth, middle), truth)
    scores = metric.compute()
    assert scores.mean_RMSE == pytest.approx(scores.values["RMSE"])
    assert scores.as_dict()["mean_predictor_RMSE"] == pytest.approx(scores.mean_RMSE)


def test_nothing_measured() -> None:
    metric = DepthMetric()
    metric.update(np.ones((4, 4)), np.zeros((4, 4)))
    scores = metric.compute()
    assert math.isnan(scores.values["RMSE"]) and scores.as_dict()["RMSE"] is None
    assert scores.images == 0
