"""The table of classification heads. A new head is a file beside this one and a row here (and its
name in ``Head`` of src/classification/settings.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from src.classification.heads.attentive import AttentiveHead
from src.classification.heads.base import ClassificationHead
from src.classification.heads.knn import KnnHead
from src.classification.heads.linear import LayersHead, LinearHead, PooledHead
from src.classification.heads.logistic import LogisticHead
from src.core.registry import Registry


class HeadBuilder(Protocol):
    """Builds a head; dims: channels of the backbone's layers, shallow to deep; layers: how many
    of them a head that reads several is to read."""

    def __call__(
        self, dims: Sequence[int], num_classes: int, layers: int
    ) -> ClassificationHead: ...


HEAD_BUILDERS: Registry[HeadBuilder] = Registry(
    "classification head",
    {
        "linear": LinearHead,
        "cls+patches": PooledHead,
        "layers": LayersHead,
        "attentive": AttentiveHead,
        "knn": KnnHead,
        "logistic": LogisticHead,
    },
)
