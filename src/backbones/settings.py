"""Options of every command that builds a backbone (light: nothing heavy is imported here)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ..core.config import CommandSettings, option

Channels = Annotated[
    list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=3, max_length=3)
]  # one figure each for red, green and blue


class BackboneOptions(CommandSettings):
    """Backbone."""

    model_name: str = option(
        "dinov3_vits16", help="torch.hub name of the backbone, e.g. dinov3_convnext_tiny"
    )
    weights: str = option(
        "pretrained",
        flags=["--weight"],
        help="backbone weights: a file name in the weights folder, a path, 'pretrained' "
        "(the public weights, from the network) or 'none' (random)",
    )
    hub: Literal["auto", "bundled", "local", "github"] = option(
        "auto",
        help="where torch.hub.load looks: this project's own hub on timm, a clone of the official "
        "repository, or GitHub; auto = the clone that --repo-dir or the .env names, else bundled",
    )
    repo_dir: Path | None = option(
        None, help="clone of facebookresearch/dinov3 or dinov2 (or any hub that answers like it)"
    )
    feature_extractor: Literal["last", "multi"] = option(
        "multi",
        flags=["--feautre-extractor"],
        help="the last feature map only, or a pyramid made of several",
    )
    fine_tune: bool = option(False, help="train the backbone too; without it, it stays frozen")
    mean: Channels | None = option(
        None, help="mean of red, green and blue, 0 to 1 (default: what the weights want)"
    )
    std: Channels | None = option(
        None, help="their standard deviation (default: what the weights want)"
    )

    def model_arguments(self) -> dict[str, Any]:
        """What a task's model builder takes; here, what it hands on to ``build_backbone``."""
        names = ("model_name", "weights", "hub", "repo_dir", "feature_extractor", "fine_tune")
        return {name: getattr(self, name) for name in (*names, "mean", "std")}


class ModelSummary(BackboneOptions):
    """The part of ``python -m src.X.model`` that tasks with classes share."""

    weights: str = option(
        "none", flags=["--weight"], help="backbone weights: a file, 'pretrained' or 'none' (random)"
    )
    num_classes: int = option(21, ge=2, help="number of classes")

    def model_arguments(self) -> dict[str, Any]:
        """With the number of classes."""
        return {**super().model_arguments(), "num_classes": self.num_classes}
