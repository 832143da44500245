"""Depth: errors in metres and in ratios, as papers on NYU Depth v2 and KITTI report them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_LEAST = 1e-3  # metres: predictions are taken to be at least this
_NAMES = ("RMSE", "AbsRel", "log10", "SILog", "delta1", "delta2", "delta3")


@dataclass(frozen=True)
class DepthScores:
    """Means over the images of a split, each image's over its measured pixels.

    RMSE: metres; AbsRel: |error| / truth; log10: |log10 of the ratio|; SILog: 100 times the
    standard deviation of the log ratio; delta1-3: share of pixels whose ratio to the truth (or
    the inverse) is below 1.25, 1.25^2, 1.25^3. mean_RMSE: of the predictor that always says the
    mean depth of these very images, the floor that a model has to leave behind. images: those
    that counted (the others have no measured pixel).
    """

    values: dict[str, float]
    mean_RMSE: float  # noqa: N815
    images: int

    def flat(self) -> dict[str, float]:
        """The figures by name, as the history and the log take them."""
        return {**self.values, "mean_predictor_RMSE": self.mean_RMSE}

    def as_dict(self) -> dict[str, float | int | None]:
        """The same as plain values; NaN becomes None."""
        figures = {n: None if math.isnan(v) else v for n, v in self.flat().items()}
        return {**figures, "measured_images": self.images}

    def table(self) -> str:
        """The figures as one line of text."""
        shown = "  ".join(f"{name} {value:.3f}" for name, value in self.values.items())
        return f"{shown}  (RMSE of the mean depth {self.mean_RMSE:.3f})"


class DepthMetric:
    """Gathers images; ``state`` and ``merge`` join the shares of processes."""

    def __init__(self) -> None:
        self.rows: list[list[float]] = []  # figures, then mean and mean square of the truth

    def update(self, prediction: np.ndarray, truth: np.ndarray) -> None:
        """Count an image: metres [H, W] of both; pixels where truth is 0 are left out."""
        assert prediction.shape == truth.shape, (prediction.shape, truth.shape)
        known = truth > 0
        if not known.any():
            return
        true = truth[known].astype(np.float64)
        found = np.maximum(prediction[known].astype(np.float64), _LEAST)
        log_ratio = np.log(found / true)
        ratio = np.exp(np.abs(log_ratio))
        figures = [
            math.sqrt(np.mean((found - true) ** 2)),
            np.mean(np.abs(found - true) / true),
            np.mean(np.abs(log_ratio)) / math.log(10),
            100 * np.std(log_ratio),
            *(np.mean(ratio < 1.25**power) for power in (1, 2, 3)),
            true.mean(),
            np.mean(true**2),
        ]
        self.rows.append([float(value) for value in figures])

    def state(self) -> list[list[float]]:
        """What has been counted, for ``merge`` on another process."""
        return self.rows

    def merge(self, state: list[list[float]]) -> None:
        """Add what another has counted."""
        self.rows = self.rows + state

    def compute(self) -> DepthScores:
        """The scores of all that was counted; NaN without a measured pixel."""
        if not self.rows:
            return DepthScores(dict.fromkeys(_NAMES, math.nan), math.nan, 0)
        table = np.array(self.rows)
        means, squares = table[:, -2], table[:, -1]
        middle = means.mean()
        constant = np.sqrt(np.maximum(squares - 2 * middle * means + middle**2, 0)).mean()
        values = dict(zip(_NAMES, table.mean(axis=0).tolist()))
        return DepthScores(values, float(constant), len(table))
