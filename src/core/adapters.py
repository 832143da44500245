"""LoRA's matrices in a state dict: their names, and their sum with the weights they belong to.

A layer's ``lora_a`` [rank, in] and ``lora_b`` [out, rank] stand beside its ``weight`` [out, in],
which is W + ALPHA / rank * B A with them (https://arxiv.org/abs/2106.09685).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

DOWN, UP = "lora_a", "lora_b"
ALPHA = 16.0


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name is a part of an adapter."""
    return name.rpartition(".")[2] in (DOWN, UP)


def without_adapters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with adapters added to their weights, so that it is one of a plain model;
    adapters whose weights are not there stay as they are."""
    plain = {name: value for name, value in state.items() if not is_adapter(name)}
    for name, value in state.items():
        if is_adapter(name):
            owner = name.rpartition(".")[0]
            weight = plain.get(f"{owner}.weight")
            if weight is None:
                plain[name] = value
            elif name.endswith(DOWN):
                change = state[f"{owner}.{UP}"].float() @ value.float()
                plain[f"{owner}.weight"] = weight + ALPHA / len(value) * change.to(weight).reshape(
                    weight.shape
                )
    return plain
