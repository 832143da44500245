"""From a name and a weight file to a Backbone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from .base import Backbone
from .catalog import CATALOG, IMAGENET, Statistics, statistics_of
from .hub import HubSource, load_hub_model

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
    hub_model: nn.Module | None = None,
) -> Backbone:
    """A backbone of the catalog through torch.hub, with its weights, frozen unless fine_tune.

    weights: 'none', 'pretrained', a file name in the weights folder or a path; mean, std: of red,
    green and blue (default: those of the weights, see ``catalog.STATISTICS``); hub_model: one that
    is there already, with its weights, for several models to share. UserError for an
    unknown name, a file that is missing, unreadable or of another model, a clone that is none.
    """
    spec = CATALOG[name]
    if hub_model is None:
        repository = Path(repo_dir) if repo_dir else None
        hub_model = load_hub_model(spec, str(weights), hub, repository)
    own = statistics_of(Path(weights).name)
    statistics = Statistics(tuple(mean or own.mean), tuple(std or own.std))  # type: ignore[arg-type]
    if statistics != IMAGENET:
        log.info("%s: images are normalised by %s", name, statistics)
    return Backbone(
        spec, hub_model, taps=feature_extractor, fine_tune=fine_tune, statistics=statistics
    )
