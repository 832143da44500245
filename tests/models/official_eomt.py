"""The authors' EoMT on a DINOv3 ViT-S from a clone, and the reference made with it.

python -m tests.models.official_eomt CLONE     writes references/eomt.npz
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.models.procedural import filled, picture, save_reference

SIDE, CLASSES, QUERIES = 64, 133, 200


def build(clone: Path) -> nn.Module:
    """Their model of panoptic segmentation, small (ViT-S, 3 blocks), without masked attention."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    modules = {}
    sys.modules.setdefault("models", types.ModuleType("models")).__path__ = [str(clone / "models")]
    for name in ("scale_block", "vit", "eomt"):
        spec = importlib.util.spec_from_file_location(
            f"models.{name}", clone / "models" / f"{name}.py"
        )
        modules[name] = sys.modules[f"models.{name}"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[name])
    config = DINOv3ViTConfig(
        hidden_size=384, num_attention_heads=6, num_hidden_layers=12, intermediate_size=1536,
        num_register_tokens=4, image_size=SIDE,
    )  # fmt: skip
    backbone = DINOv3ViTModel(config)
    backbone.layer = backbone.model.layer  # where their version of transformers has it
    del backbone.model
    ViT = modules["vit"].ViT
    encoder = ViT.__new__(ViT)
    nn.Module.__init__(encoder)
    encoder.backbone = encoder.transformers_to_timm(backbone, (SIDE, SIDE))
    for name, values in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
        encoder.register_buffer(f"pixel_{name}", torch.tensor(values).reshape(1, -1, 1, 1))
    return modules["eomt"].EoMT(encoder, CLASSES, QUERIES, 3, masked_attn_enabled=False).eval()


def weights(model: nn.Module) -> dict[str, Tensor]:
    """By the rule, under the names of the published files."""
    state = filled({f"network.{name}": value for name, value in model.state_dict().items()})
    return {name: value for name, value in state.items() if "pixel_" not in name}


@torch.inference_mode()
def answer(model: nn.Module) -> tuple[Tensor, Tensor]:
    """(masks [Q, h, w], classes [Q, C + 1]) of the picture."""
    masks, classes = model((picture(SIDE, SIDE) / 255)[None])
    return masks[-1][0], classes[-1][0]


def main(clone: Path) -> None:
    """Write the reference: the names, thinned answers."""
    model = build(clone)
    state = weights(model)
    own = {name.removeprefix("network."): value for name, value in state.items()}
    model.load_state_dict(own, strict=False)
    masks, classes = answer(model)
    print(masks.shape, masks.std(), classes.std(), len(state))
    save_reference(
        "eomt.npz", {"s": state}, masks=masks[::9, ::3, ::3].numpy(), classes=classes[::9].numpy()
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
