"""Classification: accuracies, per-class precision and recall, confusion, calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 15  # of confidence, as in Guo et al., https://arxiv.org/abs/1706.04599
THRESHOLD = 0.5  # from which on a class of multi-label data is said to be there


@dataclass(frozen=True)
class Reliability:
    """Predictions by confidence, in equal bins (0, 1/B], ... (the last one up to 1).

    counts: int64 [B]; confidence: the mean in each bin; accuracy: the share that was right; both
    float64 [B], NaN in an empty bin.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error: the gap between the two, weighted by the counts."""
        gaps = np.nan_to_num(np.abs(self.confidence - self.accuracy)) * self.counts
        return float(gaps.sum() / max(1, self.counts.sum()))


@dataclass(frozen=True)
class ClassificationScores:
    """What a split came to.

    images: number; support: int64 [C] images of each class; precision, recall, f1: float64 [C],
    0 where nothing is divided by nothing, NaN for a class that neither occurs nor is predicted
    (left out of the means); confusion: int64 [C, C], rows = truth, columns = prediction (None in
    multi-label data); outcomes: int64 [C, 2, 2], of each class (multi-label alone) [[rightly not
    said, wrongly said], [missed, rightly said]]; average_precision: float64 [C] (multi-label alone,
    NaN without a positive).
    Multi-label: top1 and top5 are NaN, a class is predicted from 0.5 on, and the calibration is
    that of every single yes or no.
    """

    names: list[str]
    images: int
    top1: float
    top5: float
    support: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    reliability: Reliability
    confusion: np.ndarray | None = None
    outcomes: np.ndarray | None = None
    average_precision: np.ndarray | None = None

    @property
    def best_metric(self) -> str:
        """The name of the headline figure in ``flat``."""
        return "top1" if self.average_precision is None else "mAP"

    def flat(self) -> dict[str, float]:
        """The headline figures by name, as the history and the log take them."""
        values = {
            "macro_F1": _mean(self.f1),
            "macro_precision": _mean(self.precision),
            "macro_recall": _mean(self.recall),
            "ECE": self.reliability.ece,
        }
        if self.average_precision is not None:
            return {"mAP": _mean(self.average_precision), **values}
        five = {"top5": self.top5} if len(self.names) > 5 else {}  # else it is always 1
        return {"top1": self.top1, **five, **values}

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values; NaN becomes None."""
        columns = {"precision": self.precision, "recall": self.recall, "F1": self.f1}
        if self.average_precision is not None:
            columns["AP"] = self.average_precision
        plain: dict[str, Any] = {name: _plain(value) for name, value in self.flat().items()}
        plain["per_class"] = {
            name: {
                "images": int(self.support[i]),
                **{column: _plain(values[i]) for column, values in columns.items()},
            }
            for i, name in enumerate(self.names)
        }
        if self.outcomes is not None:
            for name, matrix in zip(self.names, self.outcomes.tolist()):
                plain["per_class"][name]["confusion"] = matrix
        plain["reliability"] = {
            "counts": self.reliability.counts.tolist(),
            "confidence": [_plain(value) for value in self.reliability.confidence],
            "accuracy": [_plain(value) for value in self.reliability.accuracy],
        }
        if self.confusion is not None:
            plain["confusion"] = self.confusion.tolist()
        return plain

    def table(self, most: int = 30) -> str:
        """Headline figures, and the classes (of more than ``most``, the weakest), in per cent."""
        order = np.argsort(np.nan_to_num(self.f1, nan=2.0), kind="stable")[:most]
        shown = sorted(order.tolist()) if len(self.names) <= most else order.tolist()
        width = max(5, *(len(self.names[i]) for i in shown))
        lines = ["  ".join(f"{name} {100 * value:.1f}" for name, value in self.flat().items())]
        lines.append(f"{'class':<{width}}  images  precision  recall     F1")
        for i in shown:
            figures = [_percent(v[i]) for v in (self.precision, self.recall, self.f1)]
            lines.append(
                f"{self.names[i]:<{width}}  {self.support[i]:>6}  {figures[0]:>9}  "
                f"{figures[1]:>6}  {figures[2]:>5}"
            )
        return "\n".join(lines)


class ClassificationMetric:
    """Gathers images batch by batch; ``state`` and ``merge`` join the shares of processes."""

    def __init__(self, names: Sequence[str], multi_label: bool = False, bins: int = BINS) -> None:
        self.names, self.multi_label, self.bins = list(names), multi_label, bins
        classes = len(self.names)
        # int64: images, right at once, right among five; then [C, C] or [3, C]: hits, said, true
        self.right = np.zeros(3, np.int64)
        self.counts = np.zeros((3, classes) if multi_label else (classes, classes), np.int64)
        self.calibration = np.zeros((3, bins))  # counts, summed confidence, summed accuracy
        self.scores: list[tuple[np.ndarray, np.ndarray]] = []  # multi-label, for the AP

    def update(self, probabilities: np.ndarray, truth: np.ndarray) -> None:
        """probabilities: float [B, C]; truth: int [B] classes, or [B, C] of 0 and 1."""
        probabilities = np.asarray(probabilities, np.float64)
        if self.multi_label:
            truth = np.asarray(truth) > 0.5
            said = probabilities >= THRESHOLD
            self.right[0] += len(truth)
            self.counts += np.stack([(said & truth).sum(0), said.sum(0), truth.sum(0)])
            self._calibrate(probabilities.reshape(-1), truth.reshape(-1))
            self.scores.append((probabilities.astype(np.float32), truth))
            return
        truth = np.asarray(truth, np.int64)
        # Ties are broken by the class index, as argmax does.
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
        hits = order == truth[:, None]
        self.right += np.array([len(truth), hits[:, 0].sum(), hits.any(axis=1).sum()])
        np.add.at(self.counts, (truth, order[:, 0]), 1)
        self._calibrate(probabilities.max(axis=1), hits[:, 0])

    def _calibrate(self, confidence: np.ndarray, right: np.ndarray) -> None:
        place = (np.ceil(confidence * self.bins).astype(np.int64) - 1).clip(0, self.bins - 1)
        for row, weights in enumerate((None, confidence, right.astype(np.float64))):
            self.calibration[row] += np.bincount(place, weights, minlength=self.bins)

    def state(self) -> tuple[Any, ...]:
        """What has been counted, for ``merge`` on another process."""
        return self.right, self.counts, self.calibration, self.scores

    def merge(self, state: tuple[Any, ...]) -> None:
        """Add what another has counted."""
        self.right = self.right + state[0]
        self.counts = self.counts + state[1]
        self.calibration = self.calibration + state[2]
        self.scores = self.scores + state[3]

    def compute(self) -> ClassificationScores:
        """The scores of all that was counted."""
        images = int(self.right[0])
        if self.multi_label:
            hits, said, true = self.counts
        else:
            hits, said, true = np.diag(self.counts), self.counts.sum(0), self.counts.sum(1)
        known = said + true > 0
        totals = [np.where(known, _ratio(hits, part), np.nan) for part in (said, true)]
        count, confidence, accuracy = self.calibration
        some = count > 0
        means = [np.where(some, _ratio(part, count), np.nan) for part in (confidence, accuracy)]
        outcomes = np.array([[images - said - true + hits, said - hits], [true - hits, hits]])
        share = math.nan if self.multi_label or not images else 1 / images
        return ClassificationScores(
            names=self.names,
            images=images,
            top1=float(self.right[1] * share),
            top5=float(self.right[2] * share),
            support=true,
            precision=totals[0],
            recall=totals[1],
            f1=np.where(known, _ratio(2 * hits, said + true), np.nan),
            reliability=Reliability(count.astype(np.int64), means[0], means[1]),
            confusion=None if self.multi_label else self.counts,
            outcomes=outcomes.transpose(2, 0, 1) if self.multi_label else None,
            average_precision=self._average_precision() if self.multi_label else None,
        )

    def _average_precision(self) -> np.ndarray:
        """The area under each class's precision-recall steps (sklearn's definition): [C]."""
        if not self.scores:
            return np.full(len(self.names), np.nan)
        scores, truth = (np.concatenate(parts) for parts in zip(*self.scores))
        return np.array([average_precision(s, t) for s, t in zip(scores.T, truth.T)])


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Sum of (recall step) x precision over falling thresholds; scores [N], truth bool [N]."""
    positives = int(truth.sum())
    if not positives:
        return math.nan
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # equal scores: one
    hits = np.cumsum(truth[order])[ends]
    return float((np.diff(hits, prepend=0) / positives * hits / (ends + 1)).sum())


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"
