"""The state of training beside the weights, whole and by parameter name, so that a run may be
resumed with another number of processes or another strategy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .distributed import full_tensor, shard_like


def _names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]


def full_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with whole tensors (collective under FSDP)."""
    return {name: full_tensor(value.detach()) for name, value in model.state_dict().items()}


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module | None) -> None:
    """Whole weights of a (sharded) model into a plain twin, tensor by tensor (collective; None
    where no twin is wanted)."""
    twins = target.state_dict() if target is not None else {}
    for name, value in source.state_dict().items():
        whole = full_tensor(value.detach())
        if name in twins:
            twins[name].copy_(whole)


@torch.no_grad()
def load_full_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Whole weights into a (sharded) model (collective under FSDP); names may be left out."""
    for name, value in model.state_dict().items():
        if name in weights:
            value.copy_(shard_like(weights[name].to(value.dtype), value))


def optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, dict[str, Any]]:
    """{parameter name: {"exp_avg": whole tensor, ...}} on the CPU (collective under FSDP)."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    result = {}
    for name, parameter in zip(_names(model, optimizer), parameters):
        result[name] = {
            key: full_tensor(value).detach().cpu() if isinstance(value, Tensor) else value
            for key, value in optimizer.state.get(parameter, {}).items()
        }
    return result


def load_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, dict[str, Any]]
) -> None:
    """Go on from ``optimizer_state()``; learning rates and decay stay those of the optimizer."""
    parameters = dict(model.named_parameters())
    content = optimizer.state_dict()
    restored: dict[int, dict[str, Any]] = {}
    for index, name in enumerate(_names(model, optimizer)):
        restored[index] = {
            key: shard_like(value, parameters[name].detach())
            if isinstance(value, Tensor) and value.shape == parameters[name].shape
            else value
            for key, value in state.get(name, {}).items()
        }
    content["state"] = {index: values for index, values in restored.items() if values}
    optimizer.load_state_dict(content)


def checkpoint_bytes(model: nn.Module, optimizer: str, ema: bool, head_only: bool) -> int:
    """About how many bytes ``last_model.pth`` will have."""
    weights = trained = 0
    for name, value in model.state_dict().items():
        if not (head_only and name.startswith("backbone.")):
            weights += value.numel() * value.element_size()
    for parameter in model.parameters():
        if parameter.requires_grad:
            trained += parameter.numel() * parameter.element_size()
    copies = (2 if optimizer == "AdamW" else 1) + int(ema)
    return weights + copies * trained + 2**20
