"""Linear probes: on the class token, with the mean of the patches, on the last n layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .base import ClassificationHead, Features, Tokens, joined


class LinearHead(ClassificationHead):
    """A linear classifier on the last class token.

    The backbone has applied its final norm; weights start as in DINOv2's linear evaluation
    (https://github.com/facebookresearch/dinov2/blob/main/dinov2/eval/linear.py). dims: channels
    of the backbone's layers, shallow to deep.
    """

    pooled = False

    def __init__(self, dims: Sequence[int], num_classes: int, layers: int) -> None:
        super().__init__()
        self.layers = self.count(layers, len(dims))
        width = sum(dims[-self.layers :]) + (dims[-1] if self.pooled else 0)
        self.classify = nn.Linear(width, num_classes)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)

    @staticmethod
    def count(layers: int, there: int) -> int:
        """How many layers are read."""
        return 1

    @property
    def reads(self) -> str:
        patches = ", mean of patches" if self.pooled else ""
        return "class token" + (f"s of {self.layers} layers" if self.layers > 1 else "") + patches

    def gather(self, tokens: Tokens) -> Features:
        return {"vector": joined(tokens, self.pooled)}

    def forward(self, features: Features) -> Tensor:
        return self.classify(features["vector"])


class PooledHead(LinearHead):
    """The class token joined with the mean of the patches."""

    pooled = True


class LayersHead(LinearHead):
    """Meta's linear protocol: class tokens of the last ``layers`` layers, mean of the patches."""

    pooled = True

    @staticmethod
    def count(layers: int, there: int) -> int:
        """How many layers are read: no more than there are."""
        return min(layers, there)
