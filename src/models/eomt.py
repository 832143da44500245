"""EoMT on DINOv3 as ``transformers`` keeps it (EomtDinov3ForUniversalSegmentation: a folder with
config.json and model.safetensors), as a checkpoint of ours. Proved on transformers' own output in
tests/segmentation/test_eomt_published.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backbones.catalog import CATALOG
from ..core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

KIND = "eomt_dinov3"
_TAIL = {12: 3, 24: 4}  # blocks that queries go through, as segmentation/heads/eomt.py has them
_MOST_TAIL = 5
_COCO_THINGS = 80  # of the 133 classes of COCO's panoptic segmentation; the rest is stuff

# A block's names -> ours; q, k and v become one.
_BLOCK = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attention.o_proj": "attn.proj",
    "mlp.up_proj": "mlp.fc1",
    "mlp.down_proj": "mlp.fc2",
}
_GATED = {**_BLOCK, "mlp.gate_proj": "mlp.fc1_g", "mlp.up_proj": "mlp.fc1_x"}
_REST = [
    (r"embeddings\.cls_token", "backbone.hub_model.model.cls_token"),
    (r"embeddings\.register_tokens", "backbone.hub_model.model.reg_token"),
    (r"embeddings\.patch_embeddings\.(\w+)", r"backbone.hub_model.model.patch_embed.proj.\1"),
    (r"layernorm\.(\w+)", r"head.tail.norm.\1"),
    (r"query\.weight", "head.query.weight"),
    (r"class_predictor\.(\w+)", r"head.classify.\1"),
    (r"upscale_block\.(.+)", r"head.upscale.\1"),
    (r"mask_head\.(.+)", r"head.mask_head.\1"),
    (r"attn_mask_probs", "head.masking"),
    (r"criterion\.empty_weight", "head.loss.empty_weight"),
]


def is_eomt(folder: Path) -> bool:
    """Whether a folder holds such a model."""
    return _config(folder).get("model_type") == KIND


def _config(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def eomt_content(folder: Path) -> dict[str, Any]:
    """What a checkpoint of the model in a folder would hold (``engine.checkpoint``).

    task: config.json's ``task`` (semantic, instance, panoptic), which transformers does not write;
    else semantic with 100 queries or fewer, with more panoptic where there are stuff classes, and
    instance. Stuff: its ``stuff_classes`` (names), else of COCO's 133 classes those after the
    things. UserError for a model that is none of ours.
    """
    config = _config(folder)
    classes = [config["id2label"][key] for key in sorted(config["id2label"], key=int)]
    names = config.get("stuff_classes") or (classes[_COCO_THINGS:] if len(classes) == 133 else [])
    default = "panoptic" if names else "instance"
    task = config.get("task") or ("semantic" if config["num_queries"] <= 100 else default)
    side = config["image_size"]
    sides = list(side) if isinstance(side, list) else [side, side]
    backbone = vit_of(config)
    settings = {
        "model_name": backbone,
        "feature_extractor": "multi",
        "head": "eomt",
        "head_channels": 256,
        "queries": config["num_queries"],
        "task": task,
        "imgsz": sides[::-1],
        "dataset": {"ALL_CLASSES": classes} if task == "semantic" else {"STUFF_CLASSES": names},
    }
    return {
        "task": "segmentation",
        "head": "eomt",
        "backbone": {"name": backbone, "feature_extractor": "multi", "fine_tuned": True},
        "image_size": sides[::-1],
        "resize": "short" if task == "semantic" else "fit",
        "padding": "square",
        "layer_norm_eps": config["layer_norm_eps"],  # DINOv3's is 1e-5, EoMT's default 1e-6
        "classes": classes,
        "config": settings,
        "model": eomt_weights(_state(folder), config),
        "epoch": 0,
        "metrics": {},
    }


def vit_of(config: Mapping[str, Any]) -> str:
    """Our name of the ViT that an EomtDinov3Config describes. UserError when there is none, or the
    queries go through another number of its blocks than with us."""
    wanted = (config["hidden_size"],), (config["num_hidden_layers"],)
    gated = bool(config.get("use_gated_mlp"))
    found = [
        name
        for name, spec in CATALOG.items()
        if spec.is_vit
        and spec.family == "dinov3"
        and (spec.dims, spec.depths) == wanted
        and spec.swiglu == gated
    ]
    depth = config["num_hidden_layers"]
    tail = _TAIL.get(depth, _MOST_TAIL)
    if not found or config["num_blocks"] != tail or config["num_register_tokens"] != 4:
        raise UserError(
            f"this EoMT is on a ViT of {wanted[0][0]} channels and {depth} blocks, its queries in "
            f"the last {config['num_blocks']}: none of ours (dinov3_vits16, b16, l16 ...: 12 "
            "blocks, the last 3; 24, the last 4; more, the last 5)"
        )
    return found[0]


def eomt_weights(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """A state dict of EomtDinov3ForUniversalSegmentation under our names. UserError for names that
    are not its own."""
    import torch

    below = config["num_hidden_layers"] - config["num_blocks"]
    known = _GATED if config.get("use_gated_mlp") else _BLOCK
    weights: dict[str, Tensor] = {"head.steps": torch.zeros((), dtype=torch.long)}
    blocks: dict[str, dict[str, Tensor]] = {}
    strange = []
    for name, value in state.items():
        block = re.fullmatch(r"layers\.(\d+)\.(.+)", name)
        if block:
            number = int(block[1])
            where = "backbone.hub_model.model.blocks" if number < below else "head.tail.blocks"
            place = f"{where}.{number if number < below else number - below}"
            blocks.setdefault(place, {})[block[2]] = value
            continue
        rule = next((rule for rule in _REST if re.fullmatch(rule[0], name)), None)
        if rule is None:
            strange.append(name)
        else:
            weights[re.sub(rule[0], rule[1], name)] = value
    for place, parts in blocks.items():
        if any(f"attention.{part}_proj.weight" not in parts for part in "qkv"):
            raise UserError(f"these weights have no whole attention at {place}")
        own = [parts.pop(f"attention.{part}_proj.weight") for part in "qkv"]
        weights[f"{place}.attn.qkv.weight"] = torch.cat(own)
        for name, value in parts.items():
            module, _, kind = name.rpartition(".")
            bias = re.fullmatch(r"attention\.([qv])_proj\.bias", name)
            scale = re.fullmatch(r"layer_scale([12])\.lambda1", name)
            if bias:
                weights[f"{place}.attn.{bias[1]}_bias"] = value
            elif scale:
                weights[f"{place}.gamma_{scale[1]}"] = value
            elif module in known:
                weights[f"{place}.{known[module]}.{kind}"] = value
            else:
                strange.append(name)
    if strange:
        raise UserError(
            f"these weights are of another model: {len(strange)} names are not known, e.g. "
            + ", ".join(strange[:4])
        )
    return weights


def _state(folder: Path) -> dict[str, Tensor]:
    """The weights of a folder, in one file or several. UserError."""
    from safetensors.torch import load_file

    index = folder / "model.safetensors.index.json"
    files = [folder / "model.safetensors"]
    if index.is_file():
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        files = [folder / name for name in sorted(set(named))]
    state: dict[str, Tensor] = {}
    for file in files:
        try:
            state |= load_file(file)
        except Exception as error:  # safetensors' own type, which is no module's
            raise UserError(f"cannot read the weights {file}: {error}") from None
    return state
