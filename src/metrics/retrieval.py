"""How well neighbours agree with labels: recall@k and mean average precision, beside chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RetrievalScores:
    """Means over the queries, each in 0..1.

    recall: k -> share of queries with a picture of their class among the k nearest (as in metric
    learning, e.g. https://arxiv.org/abs/1511.06452); mean_ap: average precision over the whole
    ranking; the ``chance`` figures are what a random order gives on average (exactly, from the
    class counts). queries: how many counted; alone: queries left out, whose class the gallery
    lacks.
    """

    recall: dict[int, float]
    mean_ap: float
    chance_recall: dict[int, float]
    chance_mean_ap: float
    queries: int
    alone: int


def retrieval_scores(
    queries: np.ndarray,
    query_labels: np.ndarray,
    gallery: np.ndarray,
    gallery_labels: np.ndarray,
    ks: Sequence[int] = (1, 5, 10),
    *,
    leave_one_out: bool = False,
    block: int = 256,
) -> RetrievalScores:
    """Rank the gallery [N, D] for each query [M, D] by inner product (unit vectors: cosine).

    labels: integers [M] and [N]; leave_one_out: queries and gallery are the same rows, and no
    query finds itself. Equal scores are put in a random order (seeded, another for each query),
    so that neither the best nor the worst case of a tie counts.
    """
    rng = np.random.default_rng(0)
    sums = _Sums(ks)
    for start in range(0, len(queries), block):
        rows = np.arange(start, min(start + block, len(queries)))
        scores = queries[rows] @ gallery.T
        if leave_one_out:
            scores[np.arange(len(rows)), rows] = -np.inf
        order = np.lexsort((rng.random(scores.shape, np.float32), -scores))
        relevant = gallery_labels[order] == query_labels[rows][:, None]
        sums.add(relevant[:, :-1] if leave_one_out else relevant)
    return sums.scores()


class _Sums:
    """Sums over the queries."""

    def __init__(self, ks: Sequence[int]) -> None:
        self.recall = dict.fromkeys(ks, 0.0)
        self.chance = dict.fromkeys(ks, 0.0)
        self.ap = self.chance_ap = 0.0
        self.queries = self.alone = 0

    def add(self, relevant: np.ndarray) -> None:
        """relevant: bool [queries, ranks], best first."""
        positive = relevant.sum(1)
        self.alone += int((positive == 0).sum())
        relevant, positive = relevant[positive > 0], positive[positive > 0]
        count = relevant.shape[1]
        ranks = np.arange(1, count + 1)
        precision = np.cumsum(relevant, axis=1) / ranks
        self.ap += float(((precision * relevant).sum(1) / positive).sum())
        self.queries += len(relevant)
        harmonic = float((1 / ranks).sum())
        for found in positive:
            self.chance_ap += chance_average_precision(int(found), count, harmonic)
        for k in self.recall:
            self.recall[k] += float(relevant[:, :k].any(1).sum())
            self.chance[k] += sum(chance_recall(int(found), count, k) for found in positive)

    def scores(self) -> RetrievalScores:
        """The means."""
        n = max(1, self.queries)
        return RetrievalScores(
            {k: value / n for k, value in self.recall.items()},
            self.ap / n,
            {k: value / n for k, value in self.chance.items()},
            self.chance_ap / n,
            self.queries,
            self.alone,
        )


def chance_recall(positive: int, count: int, k: int) -> float:
    """Chance that k of ``count`` drawn at random hold one of the ``positive``."""
    draws = np.arange(min(k, count))
    return float(1 - np.prod(np.clip((count - positive - draws) / (count - draws), 0, 1)))


def chance_average_precision(positive: int, count: int, harmonic: float) -> float:
    """Mean average precision of a random order; harmonic: 1 + 1/2 + ... + 1/count."""
    if count < 2:
        return 1.0
    share = (positive - 1) / (count - 1)
    return share + (1 - share) * harmonic / count
