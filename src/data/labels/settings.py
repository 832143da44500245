"""The dataset YAML of classification (light: nothing heavy is imported here)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator

from ...core.config import CommandSettings, Settings, option
from ..common.settings import BandDataset, CheckData


class LabelDataset(BandDataset):
    """A classification data set: a folder a class, WebDataset shards, or a CSV of path,label.

    Paths are relative to DATA_ROOT, and that to the working folder (or the project's root).
    Folders may be given as flags instead, which are taken as they are; then no YAML is needed.
    """

    DATA_ROOT: Path = Field(Path(), description="folder that the other paths start from")
    TRAIN_DIR: Path | None = Field(
        None,
        description="folder with a sub-folder a class, or WebDataset shards (x-{000..009}.tar)",
    )
    VALID_DIR: Path | None = Field(None, description="the same, of validation images")
    TEST_DIR: Path | None = Field(None, description="the same, of test images (src.evaluate)")
    TRAIN_CSV: Path | None = Field(None, description="CSV file: image path, label(s)")
    VALID_CSV: Path | None = Field(None, description="CSV file: image path, label(s)")
    TEST_CSV: Path | None = Field(None, description="CSV file: image path, label(s)")
    CLASS_NAMES: list[str] | None = Field(
        None, description="class names by index (default: those of the training data, sorted)"
    )
    CLASS_FOLDERS: list[str] | None = Field(
        None,
        description="what the data call them, by index (ImageNet's n01440764), where that is not "
        "CLASS_NAMES",
    )
    MULTI_LABEL: bool | None = Field(
        None,
        description="an image may have several classes, or none (default: when a row of a CSV has)",
    )

    @model_validator(mode="after")
    def _consistent(self) -> LabelDataset:
        names = self.CLASS_NAMES
        if names is not None:
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise ValueError(f"CLASS_NAMES names {', '.join(repeated)} more than once")
            if not names:
                raise ValueError("CLASS_NAMES names no class")
        if self.CLASS_FOLDERS and len(self.CLASS_FOLDERS) != len(names or []):
            raise ValueError("CLASS_FOLDERS needs CLASS_NAMES, one for each of them")
        for split in ("TRAIN", "VALID", "TEST"):
            if getattr(self, f"{split}_DIR") and getattr(self, f"{split}_CSV"):
                raise ValueError(f"give {split}_DIR or {split}_CSV, not both")
        if self.MULTI_LABEL and self.TRAIN_DIR:
            raise ValueError("MULTI_LABEL needs TRAIN_CSV: a folder gives an image one class")
        return self


class LabelFolders(CommandSettings):
    """Folders of classification (where the YAML does not name them)."""

    train_dir: Path | None = option(
        None,
        help="training images in a folder a class, WebDataset shards ('x-{000..009}.tar'), or a "
        "CSV file of path,label",
    )
    valid_dir: Path | None = option(
        None, help="validation images in a folder a class, shards, or a CSV file of path,label"
    )


class CheckLabels(LabelFolders, CheckData):
    """Read a whole classification data set and report all its faults and the images of classes."""

    dataset_class: ClassVar[type[Settings] | None] = LabelDataset

    config: Path | None = option(  # type: ignore[assignment]
        None, flags=["-c"], help="dataset YAML (classification_configs/); not needed with folders"
    )
