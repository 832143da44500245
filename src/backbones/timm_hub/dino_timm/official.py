"""The way back: a model of this hub -> a state dict in Meta's names and layout.

Written so that the official hubs load it strictly and timm as it loads Meta's own files.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

ROPE_BASE = 100.0
_EVA = [
    (r"^reg_token$", "storage_tokens"),
    (r"\.gamma_([12])$", r".ls\1.gamma"),
    (r"mlp\.fc1_g\.", "mlp.w1."),
    (r"mlp\.fc1_x\.", "mlp.w2."),
]
_CONVNEXT = [
    (r"^stem\.", "downsample_layers.0."),
    (r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1."),
    (r"^stages\.(\d+)\.blocks\.", r"stages.\1."),
    (r"conv_dw", "dwconv"),
    (r"mlp\.fc", "pwconv"),
    (r"^head\.norm\.", "norm."),
]


def official_name(model: nn.Module, name: str) -> str:
    """The name of a parameter of the wrapped timm model (``model.blocks...``) in Meta's files.

    Query and value bias are parts of one there: ``attn.qkv.bias``.
    """
    inner = model.model
    name = name.removeprefix("model.")
    if hasattr(inner, "stages"):
        rules = _CONVNEXT
    elif getattr(inner, "rope", None) is not None:
        swiglu = hasattr(inner.blocks[0].mlp, "fc1_g")
        rules = _EVA + [(r"mlp\.fc2\.", "mlp.w3.")] * swiglu
        name = re.sub(r"attn\.[qv]_bias$", "attn.qkv.bias", name)
    else:
        packed = inner.blocks[0].mlp.fc1.out_features == 2 * inner.blocks[0].mlp.fc2.in_features
        rules = [(r"^reg_token$", "register_tokens")]
        rules += [(r"mlp\.fc1\.", "mlp.w12."), (r"mlp\.fc2\.", "mlp.w3.")] * packed
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def official_state(model: nn.Module) -> dict[str, Tensor]:
    """All weights by Meta's names, with what Meta's files hold beside them (mask token, rotary
    periods, masks of the key biases, the final norm of a ConvNeXt twice)."""
    inner = model.model
    state: dict[str, Tensor] = {}
    biases: dict[str, dict[str, Tensor]] = {}
    for name, value in model.state_dict().items():
        value = value.detach()
        found = re.search(r"attn\.([qv])_bias$", name)
        if found:
            biases.setdefault(official_name(model, name), {})[found[1]] = value
            continue
        state[official_name(model, name)] = value
    for name, parts in biases.items():
        middle = torch.zeros_like(parts["q"])
        state[name] = torch.cat([parts["q"], middle, parts["v"]])
        one = torch.ones_like(middle)
        state[f"{name}_mask"] = torch.cat([one, middle, one])
    if hasattr(inner, "stages"):
        return _convnext_layout(state)
    if "mask_token" not in state:
        kept = model.file_mask_token
        state["mask_token"] = torch.zeros(1, model.embed_dim) if kept is None else kept
    if getattr(inner, "rope", None) is not None:
        head = model.embed_dim // model.num_heads
        state["rope_embed.periods"] = ROPE_BASE ** (
            2 * torch.arange(head // 4).float() / (head // 2)
        )
        if "storage_tokens" not in state:
            state["storage_tokens"] = torch.zeros(1, 0, model.embed_dim)
    elif inner.no_embed_class:  # timm's register models have the class position in the token
        positions = state["pos_embed"]
        state["pos_embed"] = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
    return state


def _convnext_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pointwise layers as matrices; the final norm under both of its names."""
    for name, value in list(state.items()):
        if "pwconv" in name and value.ndim == 4:
            state[name] = value.flatten(1)
        if name.startswith("norm."):
            state[name.replace("norm.", "norms.3.")] = value
    return state
