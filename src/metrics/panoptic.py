"""Panoptic quality (https://arxiv.org/abs/1801.00868), as panopticapi counts it
(https://github.com/cocodataset/panopticapi, evaluation.py).

A segment is right where one of the truth of the same class has an IoU above one half with it,
pixels that the truth says nothing of left out. A segment of which more than half lies there, or on
a crowd of its class, is not wrong; a crowd is not missed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class PanopticScores:
    """Of each class, float64 [C]: PQ, SQ, RQ in [0, 1], nan where the class is nowhere; counts
    int64 [C]: right, wrong and missed segments."""

    names: list[str]
    stuff: list[int]
    pq: np.ndarray
    sq: np.ndarray
    rq: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    missed: np.ndarray
    images: int = 0

    def flat(self) -> dict[str, float]:
        """PQ, SQ and RQ, means over the classes that occur, and PQ of things and stuff."""
        stuff = np.isin(np.arange(len(self.names)), self.stuff)
        every = np.ones(len(self.names), bool)
        parts = (
            ("PQ", self.pq, every), ("SQ", self.sq, every), ("RQ", self.rq, every),
            ("PQ_things", self.pq, ~stuff), ("PQ_stuff", self.pq, stuff),
        )  # fmt: skip
        means = {name: _mean(values[chosen]) for name, values, chosen in parts}
        return {name: value for name, value in means.items() if value == value}

    def to_plain(self) -> dict[str, Any]:
        """Everything as JSON values (None for what is not defined)."""
        rows = zip(self.names, self.pq, self.sq, self.rq, self.right, self.wrong, self.missed)
        flat = self.flat()
        names = ("PQ", "SQ", "RQ", "PQ_things", "PQ_stuff")
        return {
            **{name: flat.get(name) for name in names},
            "images": self.images,
            "per_class": {
                name: None
                if pq != pq
                else {
                    "PQ": float(pq),
                    "SQ": float(sq),
                    "RQ": float(rq),
                    "right": int(right),
                    "wrong": int(wrong),
                    "missed": int(missed),
                }
                for name, pq, sq, rq, right, wrong, missed in rows
            },
        }


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


class PanopticMetric:
    """Collects segments of images; ``compute`` scores them. For several processes: ``merge`` the
    others' ``state``. stuff: indices of classes."""

    def __init__(self, names: Sequence[str], stuff: Collection[int] = ()) -> None:
        self.names, self.stuff = list(names), sorted(stuff)
        self.totals = np.zeros((5, len(self.names)))  # IoU, right, wrong, missed; images

    @property
    def state(self) -> np.ndarray:
        """What there is to be merged."""
        return self.totals

    def merge(self, other: np.ndarray) -> None:
        """Add what another process has seen."""
        self.totals += other

    def update(
        self,
        found: tuple[np.ndarray, np.ndarray],
        truth: tuple[np.ndarray, np.ndarray],
        crowd: np.ndarray | None = None,
    ) -> None:
        """Add an image. found, truth: ids int [H, W], from 1, 0 where there is none, and the label
        [N] of segment n + 1; crowd: bool [N] of the truth's."""
        (ids, labels), (true_ids, true_labels) = found, truth
        count, true_count = len(labels), len(true_labels)
        crowd = np.zeros(true_count, bool) if crowd is None else np.asarray(crowd, bool)
        pairs = true_ids.astype(np.int64) * (count + 1) + ids
        shared = np.bincount(pairs.reshape(-1), minlength=(true_count + 1) * (count + 1))
        shared = shared.reshape(true_count + 1, count + 1)
        areas, true_areas, void = shared.sum(axis=0)[1:], shared.sum(axis=1)[1:], shared[0, 1:]
        inside = shared[1:, 1:]
        union = true_areas[:, None] + areas - inside - void
        same = (np.asarray(true_labels)[:, None] == np.asarray(labels)) & ~crowd[:, None]
        iou = np.where(same, inside / np.maximum(union, 1), 0.0)
        rows, columns = np.nonzero(iou > 0.5)
        iou_sum, right, wrong, missed, images = self.totals
        np.add.at(iou_sum, true_labels[rows], iou[rows, columns])
        np.add.at(right, true_labels[rows], 1)
        unseen = (true_areas > 0) & ~crowd
        unseen[rows] = False
        np.add.at(missed, true_labels[unseen], 1)
        on_crowd = inside * (crowd[:, None] & (np.asarray(true_labels)[:, None] == labels))
        excused = void + on_crowd.sum(axis=0)
        false = (areas > 0) & (excused <= 0.5 * areas)
        false[columns] = False
        np.add.at(wrong, labels[false], 1)
        images[0] += 1

    def compute(self) -> PanopticScores:
        """The figures of all images."""
        iou, right, wrong, missed, images = self.totals
        total = right + 0.5 * wrong + 0.5 * missed
        there = total > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            pq = np.where(there, iou / total, np.nan)
            sq = np.where(there, np.where(right > 0, iou / right, 0.0), np.nan)
            rq = np.where(there, right / total, np.nan)
        whole = self.totals.astype(np.int64)  # but the first row, the sum of IoU
        figures = pq, sq, rq, whole[1], whole[2], whole[3]
        return PanopticScores(self.names, self.stuff, *figures, images=int(images[0]))
