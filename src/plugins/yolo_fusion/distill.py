"""A YOLO that learns from a frozen DINO while it learns to detect: no cost at inference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from ultralytics.nn.tasks import DetectionModel

from ...pretraining.tokens import TokenLoss
from .dino import FrozenDino

QUEUE = 4096  # teacher embeddings that are compared with, as in pretraining


class DistilledModel(DetectionModel):
    """A DetectionModel whose training loss has the token loss of its deepest backbone map as well.

    graph["distill"]: name and weights of the teacher, and the weight of its loss.
    """

    def __init__(self, graph: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(graph, *args, **kwargs)
        self.yaml: dict[str, Any]
        settings = self.yaml["distill"]
        self.teacher = FrozenDino(settings["name"], settings["weights"])
        self.weight = float(settings["weight"])
        self.tap = len(self.yaml["backbone"]) - 1
        with torch.no_grad():
            own = self._deepest(torch.zeros(1, 3, 64, 64))[1].shape[1]
        channels = self.teacher.channels("global")[0]
        self.distiller = TokenLoss(own, channels, queue=QUEUE)

    def _deepest(self, images: Tensor, call: Any = None) -> tuple[Any, Tensor]:
        """What ``call`` (default: the network on the images) answers, and the map of the tap."""
        kept: list[Tensor] = []
        network: Any = self.model
        layer = network[self.tap]
        handle = layer.register_forward_hook(lambda part, given, output: kept.append(output))
        try:
            answer = call() if call else self.predict(images)
        finally:
            handle.remove()
        return answer, kept[0]

    def loss(self, batch: dict[str, Any], preds: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """As DetectionModel's; in training with ``distill_loss``."""
        if preds is not None or not self.training:
            return super().loss(batch, preds)
        images = batch["img"]
        (total, items), found = self._deepest(
            images, lambda: super(DistilledModel, self).loss(batch)
        )
        patches, token = self.teacher.read(images, "tokens")
        patches = F.interpolate(patches, found.shape[-2:], mode="bilinear", align_corners=False)
        rows, truth = (one.flatten(2).transpose(1, 2) for one in (found, patches))
        terms = self.distiller.compare(rows.mean(dim=1), rows, token.flatten(1), truth)
        loss = self.weight * (terms["queue"] + terms["patches"])
        # ultralytics' parts are sums over the batch
        return total.sum() + loss * len(images), {**items, "distill_loss": loss.detach()}


def plain_model(model: Any) -> Any:
    """The detector that a DistilledModel has become, in place: nothing of the teacher is left, so
    that its file opens wherever ultralytics is."""
    if type(model) is DistilledModel:
        del model.distiller
        for name in ("teacher", "weight", "tap"):
            delattr(model, name)
        model.yaml.pop("distill")
        model.__class__ = DetectionModel  # type: ignore[assignment]
    return model
