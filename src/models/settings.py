"""Options of ``dinostack models`` (light: nothing heavy is imported here)."""

from __future__ import annotations

from typing import Literal

from ..core.config import CommandSettings, option


class ListModels(CommandSettings):
    """List the models that others published, for --model hub:NAME and --init hub:NAME."""

    task: Literal["detection", "segmentation", "classification", "depth"] | None = option(
        None, help="those of one task"
    )
    fetch: list[str] = option([], help="names of models to fetch now, for later without a network")
