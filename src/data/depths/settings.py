"""The dataset YAML of depth (light: nothing heavy is imported here)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ...core.config import CommandSettings, Settings, option
from ..common.settings import CheckData, PairDataset

Crop = Literal["none", "eigen", "garg"]


class DepthDataset(PairDataset):
    """Images and their depths: 16-bit PNG (or TIFF) files, or NPY arrays; 0 = not measured."""

    TRAIN_DEPTHS: Path | None = Field(None, description="folder of training depths")
    TRAIN_LIST: Path | None = Field(
        None, description="text file of lines 'image depth', relative to the two folders"
    )
    VALID_DEPTHS: Path | None = Field(None, description="folder of validation depths")
    VALID_LIST: Path | None = Field(
        None, description="text file of lines 'image depth', relative to the two folders"
    )
    TEST_DEPTHS: Path | None = Field(None, description="folder of test depths")
    TEST_LIST: Path | None = Field(
        None, description="text file of lines 'image depth', relative to the two folders"
    )
    DEPTH_SUFFIX: str = Field("", description="end of depth stems that is no part of the name")

    DEPTH_SCALE: float | None = Field(
        None,
        gt=0,
        description="stored value of one metre: 1000 = millimetres, 256 = KITTI (default: 1000 of "
        "whole numbers, 1 of fractions, which are metres)",
    )
    MIN_DEPTH: float = Field(0.001, gt=0, description="metres; less is not measured")
    MAX_DEPTH: float = Field(10.0, gt=0, description="metres; more is not measured")
    TRAIN_CROP: tuple[int, int, int, int] | None = Field(
        None, description="left, top, right, bottom in pixels of what training sees of an image"
    )
    EVAL_CROP: Crop = Field(
        "none",
        description="part of an image that counts in scores: eigen = that of NYU Depth v2, garg = "
        "that of KITTI",
    )

    @model_validator(mode="after")
    def _ranges(self) -> DepthDataset:
        if self.MIN_DEPTH >= self.MAX_DEPTH:
            raise ValueError("MIN_DEPTH must be below MAX_DEPTH")
        crop = self.TRAIN_CROP
        if crop is not None and not (0 <= crop[0] < crop[2] and 0 <= crop[1] < crop[3]):
            raise ValueError("TRAIN_CROP: left < right and top < bottom, in pixels")
        return self


class DepthFolders(CommandSettings):
    """Folders (where the YAML does not name them)."""

    train_images: Path | None = option(None, help="folder of training images")
    train_depths: Path | None = option(None, help="folder of training depths")
    valid_images: Path | None = option(None, help="folder of validation images")
    valid_depths: Path | None = option(None, help="folder of validation depths")

    def folders_of(self, split: str) -> tuple[Path | None, Path | None]:
        """The flags of a split: images and depths."""
        return getattr(self, f"{split}_images"), getattr(self, f"{split}_depths")


class DrawDepthDemo(CommandSettings):
    """Draw the data set of depth_configs/demo.yaml: rooms whose depth is known."""

    out: Path = option(Path("input/demo_depth"), help="folder to draw into")
    train: int = option(320, ge=1, help="training images")
    valid: int = option(64, ge=1, help="validation images")
    seed: int = option(0, ge=0, help="seed of the drawing")


class CheckDepths(DepthFolders, CheckData):
    """Read a whole data set of depths and report all its faults and the metres in it."""

    dataset_class: ClassVar[type[Settings] | None] = DepthDataset
