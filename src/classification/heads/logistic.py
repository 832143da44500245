"""Logistic regression on frozen class tokens, solved by scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ...core.errors import UserError
from ...engine.precision import exact
from .base import Features, FittedHead


class LogisticHead(FittedHead):
    """A linear classifier found by L-BFGS instead of gradient steps, as DINOv2's
    ``eval/log_regression.py``. Vectors are standardised for the solver; the result is folded back
    into plain weights, so that inference needs no scikit-learn."""

    def __init__(self, dims: Sequence[int], num_classes: int, layers: int) -> None:
        super().__init__()
        self.classify = nn.Linear(dims[-1], num_classes)

    def forward(self, features: Features) -> Tensor:
        vectors = features["vector"].float()
        with exact(vectors.device):
            return self.classify(vectors)

    def fit(self, vectors: Tensor, targets: Tensor, strength: float = 1.0) -> None:
        """See ``FittedHead.fit``; strength: of the regularisation (sklearn's 1 / C)."""
        try:
            from sklearn.linear_model import LogisticRegression
        except ImportError:
            raise UserError(
                "--head logistic needs scikit-learn: pip install scikit-learn"
            ) from None

        points, truth = vectors.cpu().double().numpy(), targets.cpu().numpy()
        mean, scale = points.mean(axis=0), points.std(axis=0).clip(1e-6)
        points = (points - mean) / scale
        classes = self.classify.out_features
        weight, bias = np.zeros((classes, points.shape[1])), np.full(classes, -30.0)

        def solve(wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            solver = LogisticRegression(C=1 / strength, max_iter=1000).fit(points, wanted)
            return solver.coef_, solver.intercept_, solver.classes_

        if truth.ndim == 2:  # a yes or no for each class
            for index, column in enumerate(truth.T):
                if 0 < column.sum() < len(column):
                    rows, offsets, _ = solve(column)
                    weight[index], bias[index] = rows[0], offsets[0]
                elif column.any():
                    bias[index] = 30.0
        else:
            rows, offsets, there = solve(truth)
            if len(rows) == 1:  # two classes: one row, for the second
                rows, offsets = np.stack([-rows[0], rows[0]]) / 2, np.array([-0.5, 0.5]) * offsets
            weight[there], bias[there] = rows, offsets
        weight = weight / scale
        with torch.no_grad():
            self.classify.weight.copy_(torch.from_numpy(weight))
            self.classify.bias.copy_(torch.from_numpy(bias - weight @ mean))
