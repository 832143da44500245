"""``hub:NAME``: the table of published models, and one of them as the content of a checkpoint."""

from __future__ import annotations

from typing import Any

from ..core.registry import Registry
from . import deimv2, dinov2, eomt_zoo
from .catalogue import PublishedModel

PREFIX = "hub:"
MODELS: Registry[PublishedModel] = Registry(
    "published model (dinostack models lists them): hub:",
    {row.name: row for row in (*deimv2.ROWS, *dinov2.ROWS, *eomt_zoo.ROWS)},
)


def published_content(name: str) -> dict[str, Any]:
    """What a checkpoint of the model would hold, from its published files (fetched the first
    time). UserError for an unknown name, and for files that cannot be had or are of another model.
    """
    model = MODELS[name.removeprefix(PREFIX)]
    from .fetching import states_of

    return model.build(model, states_of(model))
