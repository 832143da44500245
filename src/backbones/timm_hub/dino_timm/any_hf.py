"""Any vision backbone of transformers, by its name on the Hugging Face hub or as a local folder:
DINOv3 as it is published there (the satellite variants, too), SigLIP2, Swin, ConvNeXt ..."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .foreign import Foreign


class HfViT(Foreign):
    """The hidden states of an AutoModel of one stride; the final norm goes on all of them."""

    def __init__(self, model: nn.Module, config: Any) -> None:
        super().__init__()
        self.model, self.patch_size = model, int(config.patch_size)
        norms = [child for child in model.children() if "Norm" in type(child).__name__]
        self._norm_place = None if not norms else [*model.children()].index(norms[-1])
        marks = ("cls_token", "class_embedding")
        self.has_class = any(name.endswith(marks) for name, _ in model.named_parameters())
        named = "interpolate_pos_encoding"
        known = inspect.signature(model.forward).parameters
        self._any_size = {named: True} if named in known else {}
        self.n_storage_tokens = int(getattr(config, "num_register_tokens", 0))
        self.look(int(config.num_hidden_layers), 4 * self.patch_size)

    def read(self, x: Tensor, layers: Sequence[int], norm: bool) -> list[tuple]:
        """See Foreign."""
        answer = self.model(x, output_hidden_states=True, **self._any_size)
        h, w = x.shape[-2] // self.patch_size, x.shape[-1] // self.patch_size
        outputs = []
        for layer in layers:
            tokens = answer.hidden_states[layer + 1]
            if norm and self._norm_place is not None:  # CLIP's own last state has none
                tokens = [*self.model.children()][self._norm_place](tokens)
            elif norm and layer == self.n_blocks - 1:
                tokens = answer.last_hidden_state
            first = tokens.shape[1] - h * w
            grid = tokens[:, first:].reshape(len(x), h, w, -1).permute(0, 3, 1, 2)
            outputs.append((grid.contiguous(), tokens[:, 0] if self.has_class else None))
        return outputs


class HfStages(Foreign):
    """The feature maps of an AutoBackbone of several strides, the last four."""

    patch_size = None

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.look(len(model.out_features), 64)

    def read(self, x: Tensor, layers: Sequence[int], norm: bool) -> list[tuple]:
        """See Foreign."""
        maps = self.model(x).feature_maps
        return [(maps[layer], None) for layer in layers]


def any_hf(name: str, pretrained: bool, source: dict | None) -> Foreign:
    """A model by its name on the hub or its folder, random or with the weights there. source: its
    configuration, so that nothing is looked up. Raises ValueError for a model without features."""
    from transformers import CONFIG_MAPPING, AutoBackbone, AutoConfig, AutoModel
    from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

    if source is None:
        config = AutoConfig.from_pretrained(name)
        config = getattr(config, "vision_config", config)
    else:
        config = CONFIG_MAPPING[source["model_type"]].from_dict(source)
    in_stages = hasattr(config, "depths")
    if not in_stages and not hasattr(config, "patch_size"):
        raise ValueError(f"a {config.model_type} has neither patches nor stages of an image")
    if in_stages:
        stages = [i for i, stage in enumerate(config.stage_names) if stage != "stem"]
        config.out_indices = stages[-4:]
    if pretrained:
        # AutoBackbone.from_pretrained asks the network whether a folder is there.
        kind = MODEL_FOR_BACKBONE_MAPPING[type(config)] if in_stages else AutoModel
        model = kind.from_pretrained(name, config=config, dtype=torch.float32)
    else:
        model = (AutoBackbone if in_stages else AutoModel).from_config(config)
    backbone = HfStages(model) if in_stages else HfViT(model, config)
    backbone.source = config.to_dict()
    if source is None:
        backbone.mean, backbone.std = _statistics(name)
    return backbone


def _statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the images, of its preprocessor_config.json; ImageNet's where
    there is none."""
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        found = ImageProcessingMixin.get_image_processor_dict(name)[0]
    except OSError:
        found = {}
    mean, std = found.get("image_mean"), found.get("image_std")
    return tuple(mean or Foreign.mean), tuple(std or Foreign.std)
