"""Backbone weight files: finding them, reading them, and telling what they hold."""

from __future__ import annotations

import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.paths import weights_folder
from ..core.registry import did_you_mean
from .catalog import CATALOG, BackboneSpec

META = (
    "Meta sends DINOv3 weights after the form at https://ai.meta.com/resources/"
    "models-and-libraries/dinov3-downloads/"
)
RANDOM = "'--weights none' starts from random ones"
HOW_TO_GET = f"{META}; '--weights pretrained' takes them from the network, {RANDOM}"


def find_weights(value: str, spec: BackboneSpec) -> Path:
    """``--weights`` as a file: a name in the weights folder, or a path. UserError when absent."""
    folder = weights_folder(spec.family)
    for candidate in (folder / value, Path(value).expanduser()):
        if candidate.is_file():
            return candidate
    there = sorted(p.name for p in folder.glob("*.pt*")) if folder.is_dir() else []
    listed = f"; {folder}/ holds: {', '.join(there)}" if there else f"; {folder}/ holds no weights"
    wanted = f" ({spec.name} is published as {spec.file})" if spec.file else ""
    raise UserError(
        f"no weight file '{value}'{did_you_mean(value, there)}{listed}{wanted}. {HOW_TO_GET}"
    )


def read_weights(path: Path, spec: BackboneSpec) -> dict[str, Tensor]:
    """Read a checkpoint of the backbone ``spec``; anything else is refused, saying what it is.

    The file is read anew at every call: nothing is cached by name.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises many kinds for a bad file
        raise UserError(
            f"{path} cannot be read as a PyTorch checkpoint ({why_unreadable(path, error)}); it "
            "may be cut off or another kind of file: fetch it again"
        ) from None
    found = identify(state)
    if found != spec.name:
        known = CATALOG[found].description if found in CATALOG else ""
        remedy = f"; give --model-name {found}, or other --weights" if known else ""
        raise UserError(
            f"{path} holds {found}{f' ({known})' if known else ''}, but {spec.name} needs "
            f"a backbone checkpoint of its own ({spec.description}){remedy}"
        )
    return state


def looks_random(model: nn.Module) -> bool:
    """Whether a network was never trained: the weights and biases of its norms (a batch norm's and
    RMSNorm's too) are each one number over and over, as they start."""
    norms = [module for module in model.modules() if "Norm" in type(module).__name__]
    values = [p.detach().flatten() for norm in norms for p in norm.parameters(recurse=False)]
    return all(bool((value == value[0]).all()) for value in values)


def why_unreadable(path: Path, error: Exception) -> str:
    """A few words on a file that ``torch.load(weights_only=True)`` refused; its own are many."""
    if not path.stat().st_size:
        return "the file is empty"
    if isinstance(error, UnpicklingError):
        whole = is_zipfile(path)
        return "it holds Python objects, not weights alone" if whole else "it is no PyTorch file"
    lines = str(error).strip().splitlines()
    return lines[0].partition(". ")[0][:160] if lines else type(error).__name__


def identify(state: Any) -> str:
    """The catalog name of the backbone that a loaded checkpoint belongs to, else what it is.

    Meta's names and those of the bundled hub are understood.
    """
    if not isinstance(state, dict) or not state:
        return f"a {type(state).__name__}, not a state dict"
    if "task" in state and "model" in state:
        backbone = state.get("backbone", {})
        name = backbone.get("name", "?") if isinstance(backbone, dict) else "?"
        if state["task"] == "pretraining":
            return (
                f"a whole pretraining run (on {name}; its backbone.pth is the file to give, or "
                "python -m src.pretraining export --model FILE)"
            )
        return (
            f"a {state['task']} checkpoint of this toolkit (on {name}; "
            "--init starts a training from it, --model of the inference scripts uses it)"
        )
    if "model_state_dict" in state:
        return "a checkpoint of the tutorial project (with its head)"
    if not all(isinstance(value, Tensor) for value in state.values()):
        return f"a checkpoint with the entries {', '.join(map(str, list(state)[:6]))}"
    keys = {key.removeprefix("model."): value for key, value in state.items()}
    if "cls_token" in keys:
        return _identify_vit(keys)
    if any(re.match(r"(stages|downsample_layers|stem)\.", key) for key in keys):
        return _identify_convnext(keys)
    return f"a state dict of something else ({', '.join(list(state)[:4])}, ...)"


def _identify_vit(keys: dict[str, Tensor]) -> str:
    dim = keys["cls_token"].shape[-1]
    depth = 1 + max(
        (int(m[1]) for m in (re.match(r"blocks\.(\d+)\.", key) for key in keys) if m), default=-1
    )
    patch = keys["patch_embed.proj.weight"].shape[-1] if "patch_embed.proj.weight" in keys else 0
    swiglu = any(f"blocks.0.mlp.{name}.weight" in keys for name in ("w1", "w12", "fc1_g"))
    # timm's packed SwiGLU (DINOv2 giant): fc1 is twice as wide as fc2's input.
    fc1, fc2 = keys.get("blocks.0.mlp.fc1.weight"), keys.get("blocks.0.mlp.fc2.weight")
    swiglu |= fc1 is not None and fc2 is not None and fc1.shape[0] == 2 * fc2.shape[1]
    tokens = [keys[k] for k in ("storage_tokens", "register_tokens", "reg_token") if k in keys]
    registers = tokens[0].shape[1] if tokens else 0
    family = "dinov2" if "pos_embed" in keys else "dinov3"
    for name, spec in CATALOG.items():
        signature = (spec.family, spec.dims, spec.depths, spec.patch, spec.swiglu, spec.registers)
        if signature == (family, (dim,), (depth,), patch, swiglu, registers):
            return name
    return f"an unknown ViT ({dim} channels, {depth} blocks, patch {patch}, {registers} registers)"


def _identify_convnext(keys: dict[str, Tensor]) -> str:
    dims, depths = [], []
    for stage in range(4):
        pattern = re.compile(rf"stages\.{stage}\.(?:blocks\.)?(\d+)\.(?:dwconv|conv_dw)\.weight")
        matches = [(int(m[1]), keys[key]) for key in keys if (m := pattern.match(key))]
        depths.append(len(matches))
        dims.append(matches[0][1].shape[0] if matches else 0)
    for name, spec in CATALOG.items():
        if (spec.dims, spec.depths) == (tuple(dims), tuple(depths)):
            return name
    return f"an unknown ConvNeXt ({tuple(dims)} channels, {tuple(depths)} blocks)"
