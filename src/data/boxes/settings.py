"""The dataset YAML of detection (light: nothing heavy is imported here)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from ...core.config import CommandSettings, Settings, option
from ...core.registry import did_you_mean
from ..common.settings import AugmentedDataset, CheckData
from .ultralytics import ultralytics

# Annotation formats. Each is a file of its name beside this one, whose ``read(images, annotations,
# listed, names)`` answers records and faults.
FORMATS = ("voc", "coco", "yolo")


class BoxDataset(AugmentedDataset):
    """A detection data set: the tutorial's keys, and those of further formats.

    Paths are relative to DATA_ROOT, and that to the working folder (or the project's root).
    """

    formats: ClassVar[tuple[str, ...]] = FORMATS

    DATA_ROOT: Path = Field(Path(), description="folder that the other paths start from")
    HOW_TO_GET: str = Field("", description="said when a folder or file is not there")
    FORMAT: str = Field("voc", description=f"annotation format: {', '.join(FORMATS)}")
    TRAIN_IMG: Path = Field(description="folder of training images")
    TRAIN_ANNOT: Path = Field(description="folder of XML or TXT files, or a COCO JSON file")
    TRAIN_SPLIT: Path | None = Field(None, description="ImageSets file that names the images")
    VALID_IMG: Path = Field(description="folder of validation images")
    VALID_ANNOT: Path = Field(description="folder of XML or TXT files, or a COCO JSON file")
    VALID_SPLIT: Path | None = Field(None, description="ImageSets file that names the images")
    TEST_IMG: Path | None = Field(None, description="folder of test images (src.evaluate)")
    TEST_ANNOT: Path | None = Field(
        None, description="folder of XML or TXT files, or a COCO JSON file"
    )
    TEST_SPLIT: Path | None = Field(None, description="ImageSets file that names the images")
    CLASSES: list[str] = Field(description="class names, '__background__' first")
    DIFFICULT: Literal["train", "skip"] = Field(
        "train", description="VOC 'difficult' objects in training: used, or left out"
    )
    VISUALIZE_TRANSFORMED_IMAGES: bool = Field(
        False, description="save a picture of transformed samples before training"
    )

    @field_validator("FORMAT")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in cls.formats:
            hint = did_you_mean(value, cls.formats)
            raise ValueError(f"'{value}' is not one of {', '.join(cls.formats)}{hint}")
        return value

    @classmethod
    def from_yaml(cls, content: dict[str, Any], path: Path) -> dict[str, Any]:
        """An ultralytics data.yaml (path, train, val, test, names) as this class's keys."""
        return ultralytics(content, path) if {"names", "train"} <= set(content) else content

    @model_validator(mode="after")
    def _background_first(self) -> BoxDataset:
        if not self.CLASSES or self.CLASSES[0] != "__background__":
            self.CLASSES = ["__background__", *self.CLASSES]
        repeated = sorted({name for name in self.CLASSES if self.CLASSES.count(name) > 1})
        if repeated:
            raise ValueError(f"CLASSES names {', '.join(repeated)} more than once")
        if len(self.CLASSES) < 2:
            raise ValueError("CLASSES names no class beside __background__")
        return self

    @property
    def names(self) -> list[str]:
        """Class names by label: names[0] is ``__background__``."""
        return self.CLASSES


class BoxFolders(CommandSettings):
    """Images and boxes (where they are not those of the YAML)."""

    train_img: Path | None = option(None, help="folder of training images")
    train_annot: Path | None = option(
        None, help="training annotations: a folder, or a COCO JSON file"
    )
    valid_img: Path | None = option(None, help="folder of validation images")
    valid_annot: Path | None = option(
        None, help="validation annotations: a folder, or a COCO JSON file"
    )
    test_img: Path | None = option(None, help="folder of test images")
    test_annot: Path | None = option(None, help="test annotations: a folder, or a COCO JSON file")


class CheckBoxes(CheckData):
    """Read a whole detection data set and report all its faults, class counts and box sizes."""

    dataset_class: ClassVar[type[Settings] | None] = BoxDataset
