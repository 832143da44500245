"""From a name and a weight file to a Backbone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.errors import UserError
from .base import Backbone
from .catalog import CATALOG, IMAGENET, Statistics, foreign_spec, is_foreign, statistics_of
from .hub import HubSource, load_foreign, load_hub_model

log = logging.getLogger(__name__)


def build_backbone(
    name: str,
    *,
    weights: str | Path = "none",
    hub: HubSource = "auto",
    repo_dir: str | Path | None = None,
    feature_extractor: str = "multi",
    fine_tune: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    source: dict[str, Any] | None = None,
    hub_model: Any = None,
) -> Backbone:
    """A backbone through torch.hub, with its weights, frozen unless fine_tune.

    name: one of the catalog, 'timm:NAME' (any feature extractor of timm), 'hf:NAME' or 'hf:FOLDER'
    (a vision backbone of transformers; source: its configuration, so that nothing is looked up).

    weights: 'none', 'pretrained', a file name in the weights folder or a path; mean, std: of red,
    green and blue (default: those of the weights, see ``catalog.STATISTICS``); hub_model: one that
    is there already, with its weights, for several models to share. UserError for an
    unknown name, a file that is missing, unreadable or of another model, a clone that is none.
    """
    if is_foreign(name):
        hub_model = hub_model or load_foreign(name, str(weights), source)
        spec = foreign_spec(name, hub_model)
        own = Statistics(hub_model.mean, hub_model.std)
    else:
        spec = CATALOG[name]
        if hub_model is None:
            repository = Path(repo_dir) if repo_dir else None
            hub_model = load_hub_model(spec, str(weights), hub, repository)
        own = statistics_of(Path(weights).name)
    statistics = Statistics(tuple(mean or own.mean), tuple(std or own.std))
    channels = len(statistics.mean)
    if channels != len(statistics.std):
        raise UserError(f"a mean of {channels} channels, a deviation of {len(statistics.std)}")
    if channels != 3:
        inflate_input(hub_model, channels)
    if statistics != IMAGENET:
        log.info("%s: images are normalised by %s", name, statistics)
    return Backbone(
        spec, hub_model, taps=feature_extractor, fine_tune=fine_tune, statistics=statistics
    )


@torch.no_grad()
def inflate_input(hub_model: Any, channels: int) -> None:
    """Let the first layer take so many channels in place of three: the weights of red, green and
    blue over and over, and less of each, so that grey images give the same as before (as timm's
    ``adapt_input_conv``; the idea is of I3D, https://arxiv.org/abs/1705.07750). In place, once.
    """
    layers = [module for module in hub_model.modules() if isinstance(module, nn.Conv2d)]
    if not layers or layers[0].in_channels not in (3, channels):
        raise UserError(
            "the first layer of this backbone is no convolution of three channels: it takes "
            f"images of red, green and blue, not of {channels} channels"
        )
    first = layers[0]
    if first.in_channels == channels:  # a model that is there already
        return
    repeated = first.weight.repeat(1, -(-channels // 3), 1, 1)[:, :channels]
    first.weight = nn.Parameter(repeated * (3 / channels), first.weight.requires_grad)
    first.in_channels = channels
    for module in hub_model.modules():  # transformers look at the one, our own hub at the other
        for name in ("num_channels", "in_channels"):
            if not isinstance(module, nn.Conv2d) and getattr(module, name, None) == 3:
                setattr(module, name, channels)
