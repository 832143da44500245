"""Options of every command that builds a backbone (light: nothing heavy is imported here)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

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
    feature_extractor: Literal["last", "multi", "last4"] = option(
        "multi",
        flags=["--feautre-extractor"],
        help="the last feature map only, or several; last4: those of a ViT's last four blocks",
    )
    fine_tune: bool = option(False, help="train the backbone too; without it, it stays frozen")
    mean: Channels | None = option(
        None, help="mean of red, green and blue, 0 to 1 (default: what the weights want)"
    )
    std: Channels | None = option(
        None, help="their standard deviation (default: what the weights want)"
    )

    @model_validator(mode="after")
    def _colours_alone(self) -> BackboneOptions:
        channels = getattr(self.dataset, "CHANNELS", 3)
        if channels != 3 and (self.mean or self.std):
            raise ValueError(
                f"--mean and --std are of red, green and blue, and the images have {channels} "
                "channels: MEAN and STD of the dataset YAML say theirs"
            )
        return self

    def model_arguments(self) -> dict[str, Any]:
        """What a task's model builder takes; here, what it hands on to ``build_backbone``."""
        names = ("model_name", "weights", "hub", "repo_dir", "feature_extractor", "fine_tune")
        found = {name: getattr(self, name) for name in names}
        for name in ("mean", "std"):
            found[name] = getattr(self, name) or getattr(self.dataset, name.upper(), None)
        return found


class TuneOptions(BackboneOptions):
    """Tuning."""

    tune: str | None = option(
        None,
        words=True,
        metavar="HOW",
        help="what is trained of the backbone: frozen (nothing, the default), lora (adapters of "
        "low rank on the linear layers of its blocks), last N (its last N blocks), all (as "
        "--fine-tune)",
    )
    lora_rank: int = option(8, ge=1, help="rank of the adapters of --tune lora")
    unfreeze_epoch: int = option(
        1, ge=1, help="epoch in which training of the backbone begins; until then it is frozen"
    )

    @field_validator("tune", mode="before")
    @classmethod
    def _as_words(cls, value: Any) -> Any:
        """Words of the command line, or a text."""
        return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else value

    @field_validator("tune")
    @classmethod
    def _known_way(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"frozen|lora|last [1-9]\d*|all", value):
            raise ValueError("give frozen, lora, last N (a number of blocks, e.g. last 2) or all")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> TuneOptions:
        """--fine-tune and --tune say the same afterwards; contradictions are refused."""
        if self.fine_tune and self.tune not in (None, "all"):
            raise ValueError(
                f"--fine-tune trains all of the backbone, and --tune says {self.tune}: "
                "leave one of them out"
            )
        tune = self.tune or ("all" if self.fine_tune else "frozen")
        self.__dict__ |= {"tune": tune, "fine_tune": tune == "all"}
        if tune == "frozen" and self.unfreeze_epoch > 1:
            raise ValueError(
                f"--unfreeze-epoch {self.unfreeze_epoch} says when the backbone is trained, and "
                "it is frozen: give --tune lora, last N or all"
            )
        if tune != "lora" and self.lora_rank != type(self).model_fields["lora_rank"].default:
            raise ValueError(f"--lora-rank is for --tune lora, and this is --tune {tune}")
        return self


class ModelSummary(BackboneOptions):
    """The part of ``python -m src.X.model`` that tasks with classes share."""

    weights: str = option(
        "none", flags=["--weight"], help="backbone weights: a file, 'pretrained' or 'none' (random)"
    )
    num_classes: int = option(21, ge=2, help="number of classes")

    def model_arguments(self) -> dict[str, Any]:
        """With the number of classes."""
        return {**super().model_arguments(), "num_classes": self.num_classes}
