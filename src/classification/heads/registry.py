"""The table of classification heads. A new head is a file beside this one and a row here (and its
name in ``Head`` of src/classification/settings.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ...core.registry import Registry
from .attentive import AttentiveHead
from .base import ClassificationHead
from .knn import KnnHead
from .linear import LayersHead, LinearHead, PooledHead
from .logistic import LogisticHead


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
