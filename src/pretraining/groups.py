"""Which parameters learn how fast, and what the optimizer is told at each step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..engine.optim import ParameterGroup
from .schedules import Curve

LAST = ".last"  # the end of the label of a head's prototypes


def ssl_parameter_groups(
    student: nn.ModuleDict, *, layer_decay: float = 0.9, patch_embed: float = 0.2
) -> list[ParameterGroup]:
    """Groups of a student {"backbone", "dino_head", ...}, as DINOv3's: ``lr`` and ``weight_decay``
    are factors on the curves of ``StepValues``.

    layer_decay: from each layer of the backbone to the one below it; patch_embed: a further one
    on a ViT's patch embedding. Biases, norms and layer scales do not decay, tokens do. Names
    start with ``student.``; labels are the parts' names, those of prototypes end in ``.last``.
    """
    groups: dict[tuple[str, float, float], list[str]] = {}
    for part, module in student.items():
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            label, rate = part, 1.0
            if part == "backbone" and hasattr(module, "layer_of"):
                rate = layer_decay ** (module.num_layers - module.layer_of(name))  # type: ignore[operator]
                rate *= patch_embed if "patch_embed" in name else 1.0
            elif "last_layer" in name:
                label += LAST
            still = name.endswith("bias") or "norm" in name or "gamma" in name
            key = (label, rate, 0.0 if still else 1.0)
            groups.setdefault(key, []).append(f"student.{part}.{name}")
    return [
        ParameterGroup(label, tuple(names), lr=rate, weight_decay=decay)
        for (label, rate, decay), names in groups.items()
    ]


def token_groups(model: nn.Module) -> list[ParameterGroup]:
    """Groups of a distillation by tokens: factors 1, no decay on biases, norms and the like."""
    groups: dict[tuple[str, float], list[str]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            label = "backbone" if name.startswith("student.") else "project"
            groups.setdefault((label, float(parameter.ndim > 1)), []).append(name)
    return [
        ParameterGroup(label, tuple(names), lr=1.0, weight_decay=decay)
        for (label, decay), names in groups.items()
    ]


class StepValues:
    """The optimizer's values by step: its groups hold factors, and these curves what they factor.

    last_from, backbone_from: the steps from which prototypes and backbone learn (before, their
    rate is 0).
    """

    def __init__(
        self, lr: Curve, weight_decay: Curve, *, last_from: int = 0, backbone_from: int = 0
    ) -> None:
        self.lr, self.weight_decay = lr, weight_decay
        self.last_from, self.backbone_from = last_from, backbone_from

    def before(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Set the values for a step (from 0)."""
        lr, decay = self.lr(step), self.weight_decay(step)
        for group in optimizer.param_groups:
            group["lr"] = 0.0 if self.resting(group, step) else lr * group["initial_lr"]
            group["weight_decay"] = decay * group["initial_weight_decay"]

    def after(self, step: int) -> None:
        """Nothing."""

    def resting(self, group: dict[str, Any], step: int) -> bool:
        """Whether a group does not learn yet."""
        label = group["label"]
        if label == "backbone":
            return step < self.backbone_from
        return label.endswith(LAST) and step < self.last_from
