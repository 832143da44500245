"""Precision, recall and F1 over the score from which on detections count, and the best score."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .voc import Matched

THRESHOLDS = np.linspace(0, 1, 101)


def over_scores(found: Matched) -> np.ndarray:
    """Curves [3, 101] of precision, recall and F1 over ``THRESHOLDS``; precision is nan where
    nothing scores so much."""
    count = len(found.score) - np.searchsorted(found.score[::-1], THRESHOLDS - 1e-9)
    right = np.concatenate([[0], np.cumsum(found.right)])[count]
    precision = np.where(count > 0, right / np.maximum(count, 1), np.nan)
    recall = right / max(1, found.positives)
    return np.stack([precision, recall, 2 * right / np.maximum(count + found.positives, 1)])


def best_thresholds(curves: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """name -> {threshold, precision, recall, F1} where the F1 of a class is best (the middle where
    several scores are), and under "all" where the mean of the classes' F1 is."""
    if not curves:
        return {}
    everything = np.nanmean(np.nan_to_num(np.stack(list(curves.values()))), axis=0)
    named = {"all": everything, **{n: np.nan_to_num(c) for n, c in curves.items()}}
    best = {}
    for name, curve in named.items():
        top = np.flatnonzero(curve[2] >= curve[2].max() - 1e-9)
        at = int(top[len(top) // 2])
        values = [float(THRESHOLDS[at]), *(float(value) for value in curve[:, at])]
        best[name] = dict(zip(("threshold", "precision", "recall", "F1"), np.round(values, 4)))
        best[name] = {key: float(value) for key, value in best[name].items()}
    return best
