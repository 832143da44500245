"""Meta's checkpoint files as they are -> timm's names; nothing is left out in silence."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from .architectures import ARCHITECTURES

# In the files, but of training only (or recomputed): never part of the forward pass.
TRAINING_ONLY = ("mask_token", "local_cls_norm.", "projectors.")


def load_weights(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load a state dict in Meta's names or in this hub's own names, strictly.

    Raises ValueError with the names that are missing, left over or of another shape.
    """
    own = model.state_dict()
    if "mask_token" in state and hasattr(model, "learn_mask_token"):
        model.file_mask_token = state["mask_token"]
    ours = any(key.startswith("model.") for key in state)
    converted = dict(state) if ours else convert(model, state)
    if "mask_token" in own:
        converted["mask_token"] = state.get("mask_token", own["mask_token"])
    else:
        converted.pop("mask_token", None)
    missing, extra = sorted(set(own) - set(converted)), sorted(set(converted) - set(own))
    shapes = [
        f"{key} {tuple(converted[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in converted and converted[key].shape != own[key].shape
    ]
    faults = [
        f"{what}: {', '.join(keys[:4])}{' ...' if len(keys) > 4 else ''}"
        for what, keys in (("missing", missing), ("unknown", extra), ("other shape", shapes))
        if keys
    ]
    if faults:
        raise ValueError("; ".join(faults))
    model.load_state_dict(converted, strict=True)


def convert(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names and layout of Meta's checkpoints -> those of the wrapped timm model."""
    state = {key: value for key, value in state.items() if not key.startswith(TRAINING_ONLY)}
    inner = model.model
    if hasattr(inner, "stages"):
        from timm.models.convnext import checkpoint_filter_fn

        converted = checkpoint_filter_fn(_without_copies(state), inner)
    elif getattr(inner, "rope", None) is not None:
        from timm.models.eva import checkpoint_filter_fn

        _check_rope(inner, state)
        converted = checkpoint_filter_fn(_zero_key_bias(state), inner)
    else:
        converted = _convert_dinov2(inner, state)
    return {f"model.{key}": value for key, value in converted.items()}


def _without_copies(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The final norm stands twice in Meta's files (norm.*, norms.3.*): the later one counts."""
    last_norm = {
        key.replace("norms.3.", "norm."): value
        for key, value in state.items()
        if key.startswith("norms.3.")
    }
    return {k: v for k, v in state.items() if not k.startswith("norms.")} | last_norm


def _zero_key_bias(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Apply the masks of the qkv biases (official LinearKMaskedBias): the key part becomes 0."""
    masked = dict(state)
    for key, mask in state.items():
        if key.endswith("bias_mask"):
            bias = key.removesuffix("_mask")
            masked[bias] = torch.where(mask == 0, torch.zeros_like(state[bias]), state[bias])
    return masked


def _check_rope(inner: nn.Module, state: dict[str, Tensor]) -> None:
    """timm recomputes the rotary periods: refuse a file that was made with other ones."""
    periods = state.get("rope_embed.periods")
    if periods is None or periods.is_meta:
        return
    head_dim = inner.embed_dim // inner.blocks[0].attn.num_heads
    expected = 100.0 ** (2 * torch.arange(head_dim // 4).float() / (head_dim // 2))
    if periods.shape != expected.shape or not torch.allclose(periods.float(), expected, rtol=1e-2):
        raise ValueError("rope_embed.periods differ from base 100")


def _convert_dinov2(inner: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Meta's DINOv2 names -> timm's VisionTransformer."""
    renamed = {}
    for key, value in state.items():
        key = key.replace("register_tokens", "reg_token")
        key = key.replace("mlp.w12.", "mlp.fc1.").replace("mlp.w3.", "mlp.fc2.")
        renamed[key] = value
    if inner.no_embed_class:  # timm's register models: the class position is in the class token
        positions = renamed["pos_embed"]
        renamed["cls_token"] = renamed["cls_token"] + positions[:, :1]
        renamed["pos_embed"] = positions[:, 1:]
    return renamed


def load_file(model: nn.Module, path: str) -> None:
    """Load a checkpoint file (a path or a file:// URL); read anew each time, no cache."""
    path = path.removeprefix("file://")
    load_weights(model, torch.load(Path(path), map_location="cpu", weights_only=True))


def load_published(model: nn.Module, name: str) -> None:
    """The public weights through timm (from the Hugging Face hub); random ones where none exist."""
    import logging

    import timm

    published = ARCHITECTURES[name].published
    if published is None:
        logging.getLogger(__name__).warning("%s: no weights are published; random ones", name)
        return
    kwargs = {"dynamic_img_size": True} if "convnext" not in published else {}
    source = timm.create_model(published, pretrained=True, num_classes=0, **kwargs)
    load_weights(model, {f"model.{key}": value for key, value in source.state_dict().items()})
