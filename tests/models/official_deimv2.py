"""The authors' DEIMv2 from a clone, and the reference made with it.

python -m tests.models.official_deimv2 CLONE     writes references/deimv2.npz
"""

from __future__ import annotations

import contextlib
import io
import sys
import types
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from tests.models.procedural import filled, picture, save_reference

SIDE = 256  # the published models look at 640: their grids are made for any size
BACKBONES = {
    "s": "deimv2_vitt16",
    "m": "deimv2_vittplus16",
    "l": "dinov3_vits16",
    "x": "dinov3_vits16plus",
}
MEAN, STD = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def build(clone: Path, size: str) -> nn.Module:
    """The model of a size, as its YAML has it, for images of SIDE."""
    if str(clone) not in sys.path:
        sys.path.insert(0, str(clone))
    for name in ("engine", "engine.backbone", "engine.deim"):  # without what training needs
        if name not in sys.modules:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__path__ = [str(clone / name.replace(".", "/"))]
    from engine.backbone.dinov3_adapter import DINOv3STAs  # type: ignore[import-not-found]
    from engine.deim.deim_decoder import DEIMTransformer  # type: ignore[import-not-found]
    from engine.deim.hybrid_encoder import HybridEncoder  # type: ignore[import-not-found]

    base = yaml.safe_load((clone / "configs/base/deimv2.yml").read_text())
    own = yaml.safe_load((clone / f"configs/deimv2/deimv2_dinov3_{size}_coco.yml").read_text())

    def measures(part: str) -> dict:
        return {**(base.get(part) or {}), **(own.get(part) or {})}

    model = nn.Module()
    shape = {"eval_spatial_size": [SIDE, SIDE]}
    with contextlib.redirect_stdout(io.StringIO()):
        model.backbone = DINOv3STAs(**{**measures("DINOv3STAs"), "weights_path": None})
        model.encoder = HybridEncoder(**measures("HybridEncoder"), **shape)
        model.decoder = DEIMTransformer(**measures("DEIMTransformer"), num_classes=80, **shape)
    return model.eval()


@torch.inference_mode()
def answer(model: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    """(logits [300, 80], boxes [300, 4] cxcywh in [0, 1]) of an image uint8 [3, SIDE, SIDE]."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    batch = ((image / 255 - mean) / std)[None]
    found = model.decoder(model.encoder(list(model.backbone(batch))))
    return found["pred_logits"][0], found["pred_boxes"][0]


def main(clone: Path) -> None:
    """Write the reference: all names, and the answers of two sizes."""
    shapes, arrays = {}, {}
    for size in BACKBONES:
        model = build(clone, size)
        state = filled(model.state_dict())
        shapes[size] = state
        if size in "sl":
            model.load_state_dict(state)
            logits, boxes = answer(model, picture(SIDE, SIDE))
            best = logits.sigmoid().max(dim=1).values.argsort(descending=True)[:40]
            arrays |= {f"{size}/boxes": boxes[best].numpy()}
            arrays |= {f"{size}/scores": logits[best].sigmoid().max(dim=1).values.numpy()}
            arrays |= {f"{size}/labels": logits[best].argmax(dim=1).numpy()}
    save_reference("deimv2.npz", shapes, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
