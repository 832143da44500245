"""How far a backbone (``base.Backbone``) is trained: its last blocks, or adapters of low rank
beside its weights."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ..core.adapters import ALPHA
from ..core.errors import UserError


def tune_backbone(backbone: Any, how: str, rank: int) -> None:
    """Train what ``--tune`` says of a backbone: 'frozen', 'lora', 'last N' or 'all'. UserError
    where it has not so many blocks, or no linear layer in them."""
    kind, _, count = how.partition(" ")
    train_weights(backbone.hub_model, kind == "all")
    backbone.frozen = kind == "frozen"
    if kind == "last":
        _train_last(backbone, int(count))
    if kind == "lora":
        _add_adapters(backbone, rank)


def train_weights(hub_model: Any, wanted: bool) -> None:
    """Whether all weights are trained, but those that no map is made of (a pooling head)."""
    hub_model.requires_grad_(wanted)
    if wanted and hasattr(hub_model, "idle"):
        for parameter in hub_model.idle():
            parameter.requires_grad_(False)


def _blocks(backbone: Any) -> dict[str, int]:
    """The layer (see ``Backbone.layer_of``) of each parameter of a block."""
    layers = {name: backbone.layer_of(name) for name, _ in backbone.hub_model.named_parameters()}
    return {name: layer for name, layer in layers.items() if 0 < layer < backbone.num_layers}


def _train_last(backbone: Any, count: int) -> None:
    """The last blocks, and the norm behind them."""
    blocks = sorted(set(_blocks(backbone).values()))
    if not 0 < count <= len(blocks):
        raise UserError(
            f"--tune last {count}: {backbone.name} has {len(blocks)} blocks to train "
            "(a head that works inside the last ones trains those itself)"
        )
    train_weights(backbone.hub_model, True)
    for name, parameter in backbone.hub_model.named_parameters():
        if backbone.layer_of(name) < blocks[-count]:
            parameter.requires_grad_(False)


def _add_adapters(backbone: Any, rank: int) -> None:
    """LoRA on every linear layer of the blocks: attention's qkv and projection, the MLP; of a
    ConvNeXt the pointwise layers. It starts as nothing: B is zero."""
    inside = _blocks(backbone)
    found = [
        module
        for name, module in backbone.hub_model.named_modules()
        if f"{name}.weight" in inside and _is_linear(module)
    ]
    if not found:
        raise UserError(
            f"--tune lora: {backbone.name} has no linear layer in its blocks; "
            "use --tune last N or all"
        )
    for module in backbone.hub_model.modules():
        if hasattr(module, "qkv_bias_separate"):  # else timm's Eva goes past its qkv layer
            module.qkv_bias_separate = True
    for layer in found:
        holder: Any = layer
        outputs, inputs = holder.weight.shape[:2]
        holder.lora_a = nn.Parameter(holder.weight.new_empty(rank, inputs))
        holder.lora_b = nn.Parameter(holder.weight.new_zeros(outputs, rank))
        nn.init.kaiming_uniform_(holder.lora_a, a=math.sqrt(5))
        layer.register_forward_hook(_adapted)


def _is_linear(module: nn.Module) -> bool:
    """A linear layer, or the 1x1 convolution that is one; not that of nn.MultiheadAttention, which
    reads its weight and never calls it."""
    if isinstance(module, nn.Conv2d):
        plain = {module.kernel_size, module.stride} == {(1, 1)}
        return plain and module.groups == 1
    never_called = nn.modules.linear.NonDynamicallyQuantizableLinear
    return isinstance(module, nn.Linear) and not isinstance(module, never_called)


def _adapted(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """What an adapter adds to the answer of its layer."""
    down, up, scale = layer.lora_a, layer.lora_b, ALPHA / len(layer.lora_a)
    if isinstance(layer, nn.Conv2d):
        low = F.conv2d(inputs[0], down[..., None, None])
        return output + F.conv2d(low, up[..., None, None]) * scale
    return output + F.linear(F.linear(inputs[0], down), up) * scale
