"""From a name and a weight file to a Backbone."""

from __future__ import annotations

from pathlib import Path

from .base import Backbone
from .catalog import CATALOG
from .hub import HubSource, load_hub_model


def build_backbone(
    name: str,
    *,
    weights: str | Path = "none",
    hub: HubSource = "auto",
    repo_dir: str | Path | None = None,
    feature_extractor: str = "multi",
    fine_tune: bool = False,
) -> Backbone:
    """A backbone of the catalog through torch.hub, with its weights, frozen unless fine_tune.

    weights: 'none', 'pretrained', a file name in the weights folder or a path. UserError for an
    unknown name, a file that is missing, unreadable or of another model, a clone that is none.
    """
    spec = CATALOG[name]
    repository = Path(repo_dir) if repo_dir else None
    hub_model = load_hub_model(spec, str(weights), hub, repository)
    return Backbone(spec, hub_model, multi=feature_extractor == "multi", fine_tune=fine_tune)
