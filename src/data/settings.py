"""Dataset YAMLs (light: nothing heavy is imported here)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from src.core.config import CommandSettings, Settings, option
from src.core.structures import ResizeMode


class BoxDataset(Settings):
    """A detection data set: the tutorial's keys, and those of further formats.

    Paths are relative to DATA_ROOT, and that to the working folder (or the project's root).
    """

    DATA_ROOT: Path = Field(Path(), description="folder that the other paths start from")
    HOW_TO_GET: str = Field("", description="said when a folder or file is not there")
    FORMAT: Literal["voc", "coco", "yolo"] = Field("voc", description="annotation format")
    TRAIN_IMG: Path = Field(description="folder of training images")
    TRAIN_ANNOT: Path = Field(description="folder of XML or TXT files, or a COCO JSON file")
    TRAIN_SPLIT: Path | None = Field(None, description="ImageSets file that names the images")
    VALID_IMG: Path = Field(description="folder of validation images")
    VALID_ANNOT: Path = Field(description="folder of XML or TXT files, or a COCO JSON file")
    VALID_SPLIT: Path | None = Field(None, description="ImageSets file that names the images")
    CLASSES: list[str] = Field(description="class names, '__background__' first")
    DIFFICULT: Literal["train", "skip"] = Field(
        "train", description="VOC 'difficult' objects in training: used, or left out"
    )
    VISUALIZE_TRANSFORMED_IMAGES: bool = Field(
        False, description="save a picture of transformed samples before training"
    )

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


class PairDataset(Settings):
    """A data set of images and a file of truth for each, paired by stem.

    Paths are relative to DATA_ROOT, and that to the working folder (or the project's root). The
    four folders may be given as flags instead, which are taken as they are.
    """

    DATA_ROOT: Path = Field(Path(), description="folder that the other paths start from")
    TRAIN_IMAGES: Path | None = Field(None, description="folder of training images")
    TRAIN_SPLIT: Path | None = Field(None, description="text file that names the images (stems)")
    VALID_IMAGES: Path | None = Field(None, description="folder of validation images")
    VALID_SPLIT: Path | None = Field(None, description="text file that names the images (stems)")
    IMAGE_SUFFIX: str = Field("", description="end of image stems that is no part of the name")
    RECURSIVE: bool = Field(False, description="look into sub-folders as well")


class DataOptions(CommandSettings):
    """Data."""

    data_root: Path | None = option(
        None, help="folder that the YAML's paths start from (default: its DATA_ROOT)"
    )
    resize: ResizeMode = option(
        "fit", help="fit = keep the aspect ratio inside --imgsz; stretch = fill it exactly"
    )


class CheckData(CommandSettings):
    """Read a whole data set and report all its faults, class counts and box sizes."""

    # A YAML's TRAIN mapping holds flags of the training command.
    model_config = ConfigDict(extra="ignore")
    dataset_class: ClassVar[type[Settings] | None] = BoxDataset

    config: Path = option(
        Path("detection_configs/voc.yaml"), flags=["-c"], help="dataset YAML (detection_configs/)"
    )
    data_root: Path | None = option(
        None, help="folder that the YAML's paths start from (default: its DATA_ROOT)"
    )
    out_dir: Path = option(
        Path("data_check"), help="sub-folder of outputs/ for report and pictures"
    )
    samples: int = option(16, ge=0, help="images in each picture of samples")
    workers: int = option(4, ge=1, help="threads that read images")


class FetchVoc(CommandSettings):
    """Bring Pascal VOC 2007 + 2012 into the folders that detection_configs/voc.yaml names."""

    out: Path = option(Path("input"), help="folder for voc_07_12/ (about 3 GB, and 3 for archives)")
    year: list[Literal["2007", "2012"]] = option(["2007", "2012"], help="years to bring")
    segmentation: bool = option(
        False,
        help="bring the pictures and masks of VOC 2012 segmentation into voc_2012_segmentation/ "
        "instead, as segmentation_configs/voc.yaml names it",
    )
    base_url: str | None = option(
        None, help="a mirror: the address of a folder that holds the archives"
    )


class DrawDemo(CommandSettings):
    """Draw the data set of detection_configs/demo.yaml: four shapes, in VOC's format."""

    out: Path = option(Path("input/demo_boxes"), help="folder to draw into")
    train: int = option(480, ge=1, help="training images")
    valid: int = option(96, ge=1, help="validation images")
    seed: int = option(0, ge=0, help="seed of the drawing")
