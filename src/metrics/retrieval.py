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
    sums = _Sums(ks, len(gallery) - leave_one_out)
    for start in range(0, len(queries), block):
        rows = np.arange(start, min(start + block, len(queries)))
        for row, scores in zip(rows, queries[rows] @ gallery.T):
            relevant = gallery_labels == query_labels[row]
            others = ~relevant
            if leave_one_out:
                relevant[row] = False
            sums.add(ranks_of(scores[relevant], scores[others], rng))
    return sums.scores()


def ranks_of(right: np.ndarray, wrong: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ranks int64 [R] from 1, ascending, of the scores ``right`` [R] among these and ``wrong``
    [W]; equal scores in a random order. Only ``right`` is sorted."""
    ascending = np.sort(right)
    below = np.searchsorted(ascending, wrong)  # of the right ones, how many score less
    equal = wrong == ascending[np.minimum(below, len(right) - 1)] if len(right) else wrong > wrong
    # A wrong one with equals stands behind a random number of them.
    ends = np.searchsorted(ascending, wrong[equal], side="right")
    begins = below[equal]
    for begin in np.unique(begins):
        mine = begins == begin
        tied = int(ends[mine][0] - begin)
        order = rng.permutation(tied + int(mine.sum()))  # the places of the tied right ones first
        places = np.sort(order[:tied])
        begins[mine] = begin + np.searchsorted(places, order[tied:])
    below[equal] = begins
    above = np.cumsum(np.bincount(below, minlength=len(right) + 1)[::-1])[::-1][1:]
    return (above + len(right) - np.arange(len(right)))[::-1]


class _Sums:
    """Sums over the queries."""

    def __init__(self, ks: Sequence[int], count: int) -> None:
        self.count = count  # ranks of a query
        self.harmonic = float((1 / np.arange(1, count + 1)).sum())
        self.recall = dict.fromkeys(ks, 0.0)
        self.chance = dict.fromkeys(ks, 0.0)
        self.ap = self.chance_ap = 0.0
        self.queries = self.alone = 0

    def add(self, ranks: np.ndarray) -> None:
        """A query's: the ranks of its right answers, from 1, ascending."""
        found = len(ranks)
        if not found:
            self.alone += 1
            return
        self.queries += 1
        self.ap += float((np.arange(1, found + 1) / ranks).mean())
        self.chance_ap += chance_average_precision(found, self.count, self.harmonic)
        for k in self.recall:
            self.recall[k] += float(ranks[0] <= k)
            self.chance[k] += chance_recall(found, self.count, k)

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
