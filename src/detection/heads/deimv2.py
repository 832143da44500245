"""DEIMv2 (https://arxiv.org/abs/2509.20787): the encoder, decoder and loss of ``transformers``
on the three maps (strides 8, 16, 32) of our backbones. No NMS.

Nothing is downloaded: the model is made from a configuration, with random weights.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert, clip_boxes_to_image

from ...backbones.batching import FeatureMaps
from ...backbones.pyramid import Pyramid, build_pyramid
from ...core.errors import UserError
from ...core.structures import Detections, DetectionTarget
from ...engine.host import upload
from .base import Detector, Parts
from .deimv2_exact import keep_digits
from .deimv2_loss import deimv2_loss
from .deimv2_neck import DETAIL, IMAGE, SpatialTuning
from .deimv2_noise import noisy_queries
from .deimv2_published import as_published
from .matching import global_mean_count
from .postprocess import take

LEVELS = 3
_NO_CHECK = "TRANSFORMERS_DISABLE_TORCH_CHECK"
QUERIES = 300  # fewer on an image with fewer cells


class Measures(NamedTuple):
    """What tells one size of DEIMv2 from another: width of neck, encoder and decoder; of their
    feed-forward layers; decoder layers; depth and width of the encoder's blocks; channels of the
    adapter at stride 4."""

    channels: int
    encoder_ffn: int
    decoder_ffn: int
    decoder_layers: int = 4
    depth: float = 1.0
    expansion: float = 1.0
    detail: int = DETAIL


# https://github.com/Intellindust-AI-Lab/DEIMv2/tree/main/configs/deimv2
SIZES = {
    "s": Measures(192, 512, 512, depth=0.67, expansion=0.34),
    "m": Measures(256, 512, 512, expansion=0.67),
    "l": Measures(224, 896, 1792, detail=32),
    "x": Measures(256, 1024, 2048, 6, depth=1.37, expansion=1.25, detail=64),
}


def like_s(channels: int) -> Measures:
    """About DEIMv2-S's at a width of one's own: one block a stage, ffn of twice the width."""
    return Measures(channels, 2 * channels, 2 * channels, depth=0.34, expansion=0.34)


class GivenMaps(nn.Module):
    """Stands in for transformers' image encoder: answers the maps that were put into it."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[Tensor] = []

    def forward(self, pixel_values: Tensor, **_: Any) -> list[Tensor]:
        maps, self.maps = self.maps, []
        return maps


@contextmanager
def _offline() -> Iterator[None]:
    """The hub's client told not to look at the network, while transformers is imported."""
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before


def require_transformers(channels: int) -> None:
    """UserError when transformers has no DEIMv2, or it none of this width."""
    if channels % 32:
        raise UserError(f"--pyramid-channels {channels}: deimv2 needs a multiple of 32, e.g. 256")
    try:
        import scipy.optimize  # noqa: F401 - its matcher needs it

        with _offline():
            from transformers import Deimv2ForObjectDetection  # noqa: F401
    except ImportError as error:
        raise UserError(
            "--head deimv2 needs transformers 5.8 or newer (with torch 2.6: 5.8 or 5.9), and scipy "
            f"({error}): pip install 'transformers>=5.8.1' scipy; or use --head atss"
        ) from None


def build_transformer(
    num_labels: int, measures: Measures, strides: list[int], published: bool = False
) -> nn.Module:
    """transformers' Deimv2ForObjectDetection without an image encoder of its own.

    published: as in the authors' code, where transformers departs from it (see deimv2_published).
    """
    from transformers import Deimv2Config, Deimv2ForObjectDetection, HGNetV2Config

    unused: dict[str, Any] = {
        "stem_channels": [3, 4, 4],
        "stage_in_channels": [4, 4, 4, 4],
        "stage_mid_channels": [4, 4, 4, 4],
        "stage_out_channels": [4, 4, 4, 4],
        "stage_num_blocks": [1, 1, 1, 1],
        "stage_numb_of_layers": [1, 1, 1, 1],
        "out_indices": [2, 3, 4],
    }
    channels = measures.channels
    settings: dict[str, Any] = {
        "backbone_config": HGNetV2Config(**unused),
        "num_labels": num_labels,
        "initializer_bias_prior_prob": 0.01,
        "encoder_hidden_dim": channels,
        "encoder_in_channels": [channels] * LEVELS,
        "encoder_ffn_dim": measures.encoder_ffn,
        "encoder_has_trailing_conv": False,
        "feat_strides": strides,
        "num_queries": QUERIES,
        "d_model": channels,
        "decoder_in_channels": [channels] * LEVELS,
        "decoder_ffn_dim": measures.decoder_ffn,
        "decoder_layers": measures.decoder_layers,
        "decoder_n_points": [3, 6, 3],
        "depth_mult": measures.depth,
        "hidden_expansion": measures.expansion,
    }
    model = Deimv2ForObjectDetection(Deimv2Config(**settings))
    if published:
        as_published(model)
    model.model.conv_encoder = GivenMaps()
    model.loss_function = deimv2_loss
    keep_digits(model)
    return model


@contextmanager
def _without_waits() -> Iterator[None]:
    """transformers with our queries of noise, and without its check of shapes, which reads the
    device at each layer."""
    from transformers.models.deimv2 import modeling_deimv2

    theirs, switch = modeling_deimv2.get_contrastive_denoising_training_group, _NO_CHECK
    before = os.environ.get(switch)
    modeling_deimv2.get_contrastive_denoising_training_group = noisy_queries
    os.environ[switch] = "1"
    try:
        yield
    finally:
        modeling_deimv2.get_contrastive_denoising_training_group = theirs
        if before is None:
            os.environ.pop(switch, None)


class Deimv2(Detector):
    """DEIMv2: set prediction with dense one-to-one matching; sigmoid scores, the best ``limit``
    of all queries and classes. On three levels, by the spatial tuning adapter on a ViT, an FPN on a
    ConvNeXt; with ``last`` they are all made of the last map."""

    head: Any  # transformers' model, which mypy knows nothing of
    limit = 100
    compiled_parts = ("neck",)  # the head takes truths of any number, and makes losses itself

    def __init__(self, parts: Parts) -> None:
        measures = SIZES[parts.size] if parts.size else like_s(parts.channels)
        require_transformers(measures.channels)
        shapes = parts.backbone.output_shape()
        if parts.feature_extractor == "last":
            shapes = dict([list(shapes.items())[-1]])
        vit = parts.backbone.spec.is_vit
        neck: Pyramid
        if vit:
            neck = SpatialTuning(shapes, measures.channels, LEVELS, measures.detail)
        else:
            neck = build_pyramid(shapes, measures.channels, LEVELS)
        strides = [shape.stride for shape in neck.output_shape().values()]
        divisor = math.lcm(parts.transform.divisor, max(strides))
        transform = replace(parts.transform, divisor=divisor)
        super().__init__(parts.backbone, neck, parts.num_classes, transform)
        self.head = build_transformer(
            parts.num_classes - 1, measures, strides, published=parts.size is not None
        )

    def read(self, batch: Tensor) -> dict[str, Tensor]:
        """The maps that the neck looks at; a ViT's looks at the image too."""
        maps = {**self.backbone(batch), IMAGE: batch}
        return {name: maps[name] for name in self.neck.reads}

    def _run(self, maps: list[Tensor], padded: tuple[int, int], labels: Any = None) -> Any:
        cells = sum(m.shape[-2] * m.shape[-1] for m in maps)
        self.head.config.num_queries = min(QUERIES, cells)
        self.head.model.conv_encoder.maps = list(maps)
        pixels = maps[0].new_zeros(()).expand(len(maps[0]), 3, *padded)  # for its shape
        with _without_waits():
            return self.head(pixel_values=pixels, labels=labels)

    def train(self, mode: bool = True) -> Deimv2:
        """As nn.Module's, but transformers' encoder layers, which differ in training by dropout
        (there is none) and by looking for numbers that are not finite (the loop does), do not."""
        super().train(mode)
        for module in self.modules():
            if type(module).__name__ == "Deimv2EncoderLayer":
                assert module.dropout == 0
                module.training = False
        return self

    def losses(
        self, maps: list[Tensor], batch: FeatureMaps, targets: Sequence[DetectionTarget]
    ) -> dict[str, Tensor]:
        """transformers' weighted terms, those of the same name summed over the layers:
        ``mal``, ``bbox``, ``giou``, ``fgl``, ``ddf``.

        They are divided by this process's number of objects there, which is put right here.
        """
        height, width = batch.padded
        labels = []
        scale = upload([width, height, width, height], maps[0], torch.float32)
        for target in targets:
            boxes = box_convert(target["boxes"].float(), "xyxy", "cxcywh")
            labels.append({"boxes": boxes / scale, "class_labels": target["labels"] - 1})
        terms: dict[str, Tensor] = self._run(maps, batch.padded, labels).loss_dict
        count = float(max(1, sum(len(target["labels"]) for target in targets)))
        own = maps[0].new_full((), count, dtype=torch.float32)
        share = own / global_mean_count(own)
        losses: dict[str, Tensor] = {}
        for name, term in terms.items():
            name = name.split("_")[1]  # loss_bbox_aux_0 -> bbox
            losses[name] = losses.get(name, 0.0) + term * share
        # Without objects there are no denoising queries: DDP wants their weights used all the same.
        embedding = self.head.model.denoising_class_embed.weight
        losses["mal"] = losses["mal"] + 0.0 * embedding.sum()
        return losses

    def detect(self, maps: list[Tensor], padded: tuple[int, int]) -> dict[str, Tensor]:
        outputs = self._run(maps, padded)
        scores = outputs.logits.float().sigmoid()
        values, flat = scores.flatten(1).topk(min(self.limit, scores[0].numel()), dim=1)
        query = torch.div(flat, scores.shape[2], rounding_mode="floor")
        height, width = padded
        boxes = box_convert(take(outputs.pred_boxes.float(), query), "cxcywh", "xyxy")
        boxes = boxes * upload([width, height, width, height], boxes)
        return {"boxes": boxes, "scores": values, "labels": flat % scores.shape[2] + 1}

    def of_each(self, answers: dict[str, Tensor], batch: FeatureMaps) -> list[Detections]:
        """The best, inside the image."""
        rows = zip(answers["boxes"], answers["scores"], answers["labels"], batch.sizes)
        return [
            {"boxes": clip_boxes_to_image(boxes, size), "scores": scores, "labels": labels}
            for boxes, scores, labels, size in rows
        ]
