"""Options of the commands that bring or draw data (light: nothing heavy is imported here)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ..core.config import CommandSettings, option


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


class DrawInstances(CommandSettings):
    """Draw the data set of segmentation_configs/demo_instance.yaml and demo_panoptic.yaml: four
    shapes on a ground, in COCO's formats of instances and of panoptic segmentation."""

    out: Path = option(Path("input/demo_instances"), help="folder to draw into")
    train: int = option(480, ge=1, help="training images")
    valid: int = option(96, ge=1, help="validation images")
    seed: int = option(0, ge=0, help="seed of the drawing")
