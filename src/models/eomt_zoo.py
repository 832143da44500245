"""EoMT on DINOv3 from its authors' model zoo (https://github.com/tue-mps/eomt, MIT): semantic,
panoptic and instance segmentation. Proved on their code in tests/models/test_eomt_zoo.py.

The published files are differences from Meta's DINOv3 weights (training/lightning_module.py,
``delta_weights``), which have to be in the weights folder: Meta hands these out itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..backbones.catalog import CATALOG
from .catalogue import File, PublishedModel, content, on_hugging_face, shipped_dataset
from .eomt import eomt_weights
from .renaming import rename, split

if TYPE_CHECKING:
    from torch import Tensor

    from .renaming import State

_BACKBONE = r"network\.encoder\.backbone\."
# The authors' names -> transformers' EoMT, which ``eomt_weights`` knows.
RULES = [
    (rf"{_BACKBONE}patch_embed\.(.*)", r"embeddings.\1"),
    (rf"{_BACKBONE}(?:blocks|layer)\.(.*)", r"layers.\1"),
    (rf"{_BACKBONE}norm\.(.*)", r"layernorm.\1"),
    (r"network\.attn_mask_probs", "attn_mask_probs"),
    (r"network\.q\.weight", "query.weight"),
    (r"network\.class_head\.(.*)", r"class_predictor.\1"),
    (r"network\.mask_head\.0\.(.*)", r"mask_head.fc1.\1"),
    (r"network\.mask_head\.2\.(.*)", r"mask_head.fc2.\1"),
    (r"network\.mask_head\.4\.(.*)", r"mask_head.fc3.\1"),
    (r"network\.upscale\.(\d)\.norm\.(.*)", r"upscale_block.block.\1.layernorm2d.\2"),
    (r"network\.upscale\.(.*)", r"upscale_block.block.\1"),
]
_NO_WEIGHTS = r"(.*pixel_(mean|std)|.*inv_freq|criterion\.empty_weight|.*mask_token)"
# Meta's names -> transformers' DINOv3.
_META = [
    (r"cls_token", "embeddings.cls_token"),
    (r"storage_tokens", "embeddings.register_tokens"),
    (r"patch_embed\.proj\.(.*)", r"embeddings.patch_embeddings.\1"),
    (r"norm\.(.*)", r"layernorm.\1"),
    (r"blocks\.(\d+)\.attn\.([qkv])\.(.*)", r"layers.\1.attention.\2_proj.\3"),
    (r"blocks\.(\d+)\.attn\.proj\.(.*)", r"layers.\1.attention.o_proj.\2"),
    (r"blocks\.(\d+)\.ls([12])\.gamma", r"layers.\1.layer_scale\2.lambda1"),
    (r"blocks\.(\d+)\.mlp\.fc1\.(.*)", r"layers.\1.mlp.up_proj.\2"),
    (r"blocks\.(\d+)\.mlp\.fc2\.(.*)", r"layers.\1.mlp.down_proj.\2"),
    (r"blocks\.(\d+)\.(norm[12]\..*)", r"layers.\1.\2"),
]
_META_ONLY = r"(mask_token|local_cls_norm\..*|rope_embed\.periods|.*bias_mask|.*attn\.k\.bias)"


def whole(difference: State, meta: State) -> dict[str, Tensor]:
    """The published difference and Meta's backbone -> a state dict of transformers' EoMT. What is
    not the backbone's was 0 before, and the masking probabilities were 1."""
    state = rename(difference, RULES, _NO_WEIGHTS)
    parts = split(meta, r"(blocks\.\d+\.attn\.)qkv\.(weight|bias)", [rf"\1{p}.\2" for p in "qkv"])
    for name, value in rename(parts, _META, _META_ONLY).items():
        state[name] = state[name] + value.reshape(state[name].shape)
    state["attn_mask_probs"] = state["attn_mask_probs"] + 1
    return state


def zoo_content(model: PublishedModel, states: Sequence[State]) -> dict[str, Any]:
    """The content of a checkpoint (``catalogue.content``)."""
    import torch

    spec, task = CATALOG[model.backbone], model.settings["task"]
    blocks = 4 if spec.depths[0] == 24 else 3
    measures = {"num_hidden_layers": spec.depths[0], "num_blocks": blocks}
    weights = eomt_weights(whole(states[0], states[1]), measures)
    if task == "semantic":
        dataset = shipped_dataset("segmentation_configs/ade20k.yaml")
        classes = dataset["ALL_CLASSES"]
    else:
        dataset = shipped_dataset(f"segmentation_configs/coco_{task}.yaml")
        classes = [name for name in dataset["CLASSES"] if name != "__background__"]
    loss = torch.ones(len(classes) + 1)  # of the classes in the loss; the last is no object's
    loss[-1] = 0.1
    weights["head.loss.empty_weight"] = loss
    side = int(model.name.rsplit("_", 1)[1])
    if task == "semantic":
        return content(model, weights, classes, (side, side), "short", dataset)
    return content(model, weights, classes, (side, side), "fit", dataset, padding="square")


def _row(task: str, letter: str, side: int, figure: str) -> PublishedModel:
    data, zoo = ("ade20k", "ade") if task == "semantic" else ("coco", "coco")
    size = {"s": "small", "b": "base", "l": "large"}[letter]
    name = f"eomt_dinov3_{letter}_{data}_{task}_{side}"
    backbone = f"dinov3_vit{letter}16"
    spec = CATALOG[backbone]
    repository = f"tue-mps/{zoo}_{task}_eomt_{size}_{side}_dinov3"
    megabytes = 4 * spec.parameters
    return PublishedModel(
        name,
        "segmentation",
        backbone,
        "eomt",
        (
            File(f"hub/{name}.bin", on_hugging_face(repository, "pytorch_model.bin"), megabytes),
            File(str(spec.file), None, megabytes, backbone=True),
        ),
        "MIT; backbone: DINOv3 License",
        "https://github.com/tue-mps/eomt",
        zoo_content,
        figure,
        "https://github.com/tue-mps/eomt/blob/master/model_zoo/dinov3.md",
        {"task": task, "queries": 100 if task == "semantic" else 200, "head_channels": 256},
    )


ROWS = [
    _row("semantic", "l", 512, "ADE20K mIoU 59.5"),
    _row("panoptic", "s", 640, "COCO PQ 47.2"),
    _row("panoptic", "b", 640, "COCO PQ 53.1"),
    _row("panoptic", "l", 640, "COCO PQ 56.8"),
    _row("panoptic", "l", 1280, "COCO PQ 58.9"),
    _row("instance", "l", 640, "COCO mask AP 45.9"),
    _row("instance", "l", 1280, "COCO mask AP 49.9"),
]
