"""Meta's DINOv2 classifiers, segmentation and depth from a clone, and the reference made with them.

python -m tests.models.official_dinov2 CLONE     writes references/dinov2.npz

All on ViT-S/14. Segmentation is mmsegmentation's in Meta's repository; what its BNHead does (batch
norm, 1x1 convolution, bilinear resizing to the image) is restated here on Meta's backbone and
padding.
"""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models.official_deimv2 import MEAN, STD
from tests.models.procedural import filled, picture, save_reference

KINDS = ("imagenet", "imagenet4", "ade20k_linear", "voc2012_ms")
KINDS += ("nyu_linear", "kitti_linear4", "nyu_dpt")
SIZE = (65, 100)  # no multiples of 14: padded to 70 x 112, the image in the middle
CROP = (56, 56)


class Segmenter(nn.Module):
    """What mmsegmentation makes of Meta's configuration."""

    def __init__(self, backbone, padding, layers: list[int], classes: int) -> None:
        super().__init__()
        self.layers, self.padding = layers, padding
        self.backbone = backbone
        self.decode_head = nn.Module()
        self.decode_head.bn = nn.BatchNorm2d(384 * len(layers))
        self.decode_head.conv_seg = nn.Conv2d(384 * len(layers), classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.backbone.get_intermediate_layers(self.padding(x), n=self.layers, reshape=True)
        logits = self.decode_head.conv_seg(self.decode_head.bn(torch.cat(maps, dim=1)))
        return F.interpolate(logits, x.shape[-2:], mode="bilinear", align_corners=False)


def build(clone: Path, kind: str) -> nn.Module:
    """Meta's model of a kind with random weights."""
    if str(clone) not in sys.path:
        sys.path.insert(0, str(clone))
    warnings.filterwarnings("ignore", message="xFormers")
    from dinov2.hub import backbones, classifiers, depthers  # type: ignore[import-not-found]
    from dinov2.hub.utils import CenterPadding  # type: ignore[import-not-found]

    data, _, head = kind.partition("_")
    if data.startswith("imagenet"):
        layers = 4 if kind.endswith("4") else 1
        model = classifiers.dinov2_vits14_lc(layers=layers, pretrained=False)
    elif data in ("nyu", "kitti"):
        span = (0.001, 10.0 if data == "nyu" else 80.0)
        if head == "dpt":
            model = depthers.dinov2_vits14_dd(pretrained=False, depth_range=span)
        else:
            layers = 4 if head == "linear4" else 1
            model = depthers.dinov2_vits14_ld(layers=layers, pretrained=False)
            model.decode_head.max_depth = span[1]  # the hub's says 80 for both
    else:
        backbone = backbones.dinov2_vits14(pretrained=False)
        layers = [11] if head == "linear" else [8, 9, 10, 11]
        classes = 150 if data == "ade20k" else 21
        model = Segmenter(backbone, CenterPadding(14), layers, classes)
    return model.eval()


def halves(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Fill the model by the rule; its weights as they are published: the head's file, and the
    backbone's."""
    state = model.state_dict()
    plain = {name: re.sub("^(backbone|linear_head)[.]", "", name) for name in state}
    parts = [
        filled({plain[n]: v for n, v in state.items() if n.startswith("backbone.") == inside})
        for inside in (False, True)
    ]
    for name, value in state.items():
        value.copy_(parts[name.startswith("backbone.")][plain[name]])
    return parts[0], parts[1]


@torch.inference_mode()
def answer(model: nn.Module, kind: str) -> np.ndarray:
    """Logits [1000], logits [C, h, w] or metres [1, h, w] of the picture."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    batch = ((picture(*(CROP if kind.startswith("imagenet") else SIZE)) / 255 - mean) / std)[None]
    if kind.split("_")[0] in ("nyu", "kitti"):
        return model.whole_inference(batch, img_meta=None, rescale=True)[0].numpy()
    return model(batch)[0].numpy()


def thinned(answered: np.ndarray) -> np.ndarray:
    """A few of the values."""
    return answered[::7, ::6, ::6] if answered.ndim == 3 else answered[::9]


def main(clone: Path) -> None:
    """Write the reference: names of all, thinned answers."""
    shapes, answers = {}, {}
    for kind in KINDS:
        model = build(clone, kind)
        shapes[kind], shapes["backbone"] = halves(model)
        answers[kind] = thinned(answer(model, kind))
        print(kind, answers[kind].shape, answers[kind].std(), answers[kind].min())
    save_reference("dinov2.npz", shapes, **answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
