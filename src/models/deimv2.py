"""DEIMv2 of Intellindust (https://arxiv.org/abs/2509.20787): detectors of COCO's 80 classes, as
``--head deimv2 --deimv2-size``. Proved on the authors' code in tests/models/test_deimv2.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .catalogue import File, PublishedModel, content, on_hugging_face, shipped_dataset
from .renaming import rename, split, under

if TYPE_CHECKING:
    from torch import Tensor

    from .renaming import State

_NORM = "(weight|bias|running_mean|running_var|num_batches_tracked)"
_BLOCK = r"encoder\.(fpn|pan)_blocks\.(\d+)\."
_OURS = r"head.model.encoder.\1_blocks.\2."
_LAYER = r"decoder\.decoder\.layers\.(\d+)\."
_DECODER = r"head.model.decoder.layers.\1."
_AIFI = r"encoder\.encoder\.(\d+)\.layers\.0\."
_ENCODER = r"head.model.encoder.aifi.\1.layers.0."

RULES = [
    (r"backbone\.sta\.stem\.0\.weight", "neck.adapter.stem_conv.conv.weight"),
    (rf"backbone\.sta\.stem\.1\.{_NORM}", r"neck.adapter.stem_conv.norm.\1"),
    (r"backbone\.sta\.conv(\d)\.[01]\.weight(?<!2\.1\.weight)", r"neck.adapter.conv\1.conv.weight"),
    (rf"backbone\.sta\.conv(\d)\.[12]\.{_NORM}", r"neck.adapter.conv\1.norm.\2"),
    (r"backbone\.convs\.(\d+)\.weight", r"neck.fusion.\1.conv.weight"),
    (rf"backbone\.norms\.(\d+)\.{_NORM}", r"neck.fusion.\1.norm.\2"),
    (rf"{_AIFI}self_attn\.(q|k|v)_(weight|bias)", rf"{_ENCODER}self_attn.\2_proj.\3"),
    (rf"{_AIFI}self_attn\.out_proj\.(weight|bias)", rf"{_ENCODER}self_attn.o_proj.\2"),
    (rf"{_AIFI}linear1\.(weight|bias)", rf"{_ENCODER}mlp.layers.0.\2"),
    (rf"{_AIFI}linear2\.(weight|bias)", rf"{_ENCODER}mlp.layers.1.\2"),
    (rf"{_AIFI}norm1\.(weight|bias)", rf"{_ENCODER}self_attn_layer_norm.\2"),
    (rf"{_AIFI}norm2\.(weight|bias)", rf"{_ENCODER}final_layer_norm.\2"),
    (r"encoder\.lateral_convs\.(.*)", r"head.model.encoder.lateral_convs.\1"),
    (r"encoder\.downsample_convs\.(\d+)\.0\.cv(\d)\.(.*)",
     r"head.model.encoder.downsample_convs.\1.conv\2.\3"),
    (rf"{_BLOCK}cv1\.(.*)", rf"{_OURS}conv1.\3"),
    (rf"{_BLOCK}cv4\.(.*)", rf"{_OURS}conv2.\3"),
    (rf"{_BLOCK}cv2\.0\.(.*)", rf"{_OURS}csp_rep1.\3"),
    (rf"{_BLOCK}cv3\.0\.(.*)", rf"{_OURS}csp_rep2.\3"),
    (r"decoder\.(?:decoder\.)?(up|reg_scale)", r"head.model.decoder.\1"),
    (rf"{_LAYER}self_attn\.(q|k|v)_(weight|bias)", rf"{_DECODER}self_attn.\2_proj.\3"),
    (rf"{_LAYER}self_attn\.out_proj\.(weight|bias)", rf"{_DECODER}self_attn.o_proj.\2"),
    (rf"{_LAYER}norm1\.scale", rf"{_DECODER}self_attn_layer_norm.weight"),
    (rf"{_LAYER}norm3\.scale", rf"{_DECODER}final_layer_norm.weight"),
    (rf"{_LAYER}cross_attn\.(.*)", rf"{_DECODER}encoder_attn.\2"),
    (rf"{_LAYER}gateway\.gate\.(.*)", rf"{_DECODER}gateway.gate.\2"),
    (rf"{_LAYER}gateway\.norm\.scale", rf"{_DECODER}gateway.norm.weight"),
    (rf"{_LAYER}swish_ffn\.(gate|up)_(weight|bias)", rf"{_DECODER}mlp.\2_proj.\3"),
    (rf"{_LAYER}swish_ffn\.w3\.(weight|bias)", rf"{_DECODER}mlp.down_proj.\2"),
    (r"decoder\.decoder\.lqe_layers\.(.*)", r"head.model.decoder.lqe_layers.\1"),
    (r"decoder\.(query_pos_head|pre_bbox_head)\.(.*)", r"head.model.decoder.\1.\2"),
    (r"decoder\.(enc_score_head|enc_bbox_head|denoising_class_embed)\.(.*)", r"head.model.\1.\2"),
    (r"decoder\.dec_score_head\.(.*)", r"head.model.decoder.class_embed.\1"),
    (r"decoder\.dec_bbox_head\.(.*)", r"head.model.decoder.bbox_embed.\1"),
    (r"backbone\.dinov3\.(?:_model\.)?(.*)", r"backbone.hub_model.\1"),
]  # fmt: skip
_RECOMPUTED = r"decoder\.(anchors|valid_mask)"
_TIED = "head.model.decoder."  # transformers names its decoder's heads twice


def convert(state: State) -> dict[str, Tensor]:
    """The authors' names -> ours (the backbone's stay Meta's: ``Backbone.adapt_state_dict``)."""
    state = split(
        state,
        r"(.*self_attn\.)in_proj_(weight|bias)",
        [rf"\1{part}_\2" for part in "qkv"],
    )
    state = split(state, r"(.*swish_ffn\.)w12\.(weight|bias)", [r"\1gate_\2", r"\1up_\2"])
    ours = rename(state, RULES, _RECOMPUTED)
    heads = {
        name.removeprefix(_TIED): value
        for name, value in ours.items()
        if name.startswith((f"{_TIED}class_embed", f"{_TIED}bbox_embed"))
    }
    return ours | under(heads, "head.")


def deimv2_content(model: PublishedModel, states: Sequence[State]) -> dict[str, Any]:
    """The content of a checkpoint (``catalogue.content``)."""
    dataset = shipped_dataset("detection_configs/coco.yaml")
    return content(model, convert(states[0]), dataset["CLASSES"], (640, 640), "stretch", dataset)


_PAGE = "https://github.com/Intellindust-AI-Lab/DEIMv2"


def _row(size: str, backbone: str, ap: float, megabytes: float) -> PublishedModel:
    name = f"deimv2_dinov3_{size}_coco"
    url = on_hugging_face(f"Intellindust/DEIMv2_DINOv3_{size.upper()}_COCO", "model.safetensors")
    return PublishedModel(
        name,
        "detection",
        backbone,
        "deimv2",
        (File(f"hub/{name}.safetensors", url, megabytes),),
        "Apache-2.0" + ("; backbone: DINOv3 License" if backbone.startswith("dinov3") else ""),
        _PAGE,
        deimv2_content,
        f"COCO val2017 AP {ap}",
        f"{_PAGE}#1-model-zoo",
        {"deimv2_size": size, "pyramid_channels": None, "nms": 0.45},
    )


# Megabytes: of the authors' model in float32.
ROWS = [
    _row("s", "deimv2_vitt16", 50.9, 39.3),
    _row("m", "deimv2_vittplus16", 53.0, 73.7),
    _row("l", "dinov3_vits16", 56.0, 130.5),
    _row("x", "dinov3_vits16plus", 57.8, 205.2),
]
