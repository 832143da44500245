"""One pass of a frozen backbone for several models: each takes its layers of it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .batching import FeatureModel

Layers = dict[int, tuple[Tensor, Tensor]]  # index -> (map [B, C, h, w], class token [B, C])


class OnePass(nn.Module):
    """A hub model that remembers what it said of the batches at hand, for all models that look.

    It answers ``get_intermediate_layers`` of the very tensor that it was asked of before from its
    memory (see ``batching.SharedImages``); of another it computes all layers that any of its
    models wants. ``passes`` counts.
    """

    def __init__(self, hub_model: nn.Module, models: Sequence[FeatureModel]) -> None:
        super().__init__()
        self.hub_model: Any = hub_model
        self.passes = 0
        self._wanted: set[int] = set()
        self._seen = threading.local()  # a batch goes through in one thread
        for model in models:
            model.backbone.hub_model = self
            self._learn(model)

    @torch.inference_mode()
    def _learn(self, model: FeatureModel) -> None:
        """Which layers a model wants: it reads a blank image."""
        device = next(self.hub_model.parameters()).device
        model.read(model.backbone.blank(model.divisor).to(device))
        self.forget()
        self.passes = 0

    def forget(self) -> None:
        """This thread's batches are done with."""
        self._seen.batches = []

    def get_intermediate_layers(
        self, x: Tensor, n: int | Sequence[int] = 1, **how: Any
    ) -> tuple[Any, ...]:
        """As the hub models'; what is asked for without ``norm`` is not remembered."""
        if not (how.get("reshape") and how.get("norm")):
            return self.hub_model.get_intermediate_layers(x, n=n, **how)
        count = self.hub_model.n_blocks
        layers = list(range(count - n, count)) if isinstance(n, int) else list(n)
        seen = self._look(x, set(layers))
        pairs = [seen[index] for index in layers]
        return tuple(pairs if how.get("return_class_token") else [patches for patches, _ in pairs])

    def _look(self, x: Tensor, layers: set[int]) -> Layers:
        batches = getattr(self._seen, "batches", [])
        for batch, seen in batches:
            if batch is x and layers <= set(seen):
                return seen
        self._wanted |= layers
        wanted = sorted(self._wanted)
        found = self.hub_model.get_intermediate_layers(
            x, n=wanted, reshape=True, return_class_token=True, norm=True
        )
        self.passes += 1
        seen = dict(zip(wanted, found))
        self._seen.batches = [*batches, (x, seen)]
        return seen


def share_passes(models: Sequence[FeatureModel]) -> list[OnePass]:
    """Models whose backbones are one hub model look through one ``OnePass`` from now on; those that
    were exported answer as a whole, and are left as they are.

    Restored inside ``predict.frozen.one_backbone`` and on their device.
    """
    by_hub: dict[int, list[FeatureModel]] = {}
    for model in models:
        if model.elsewhere:  # an exported file answers
            continue
        by_hub.setdefault(id(model.backbone.hub_model), []).append(model)
    return [OnePass(group[0].backbone.hub_model, group) for group in by_hub.values()]
