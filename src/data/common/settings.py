"""What dataset YAMLs and data options of several tasks share (light: nothing heavy is imported)."""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict, Field

from ...core.config import CommandSettings, Settings, option
from ...core.structures import WholeResize


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
    TEST_IMAGES: Path | None = Field(None, description="folder of test images (src.evaluate)")
    TEST_SPLIT: Path | None = Field(None, description="text file that names the images (stems)")
    IMAGE_SUFFIX: str = Field("", description="end of image stems that is no part of the name")
    RECURSIVE: bool = Field(
        False,
        description="look into sub-folders as well, and pair by the path below the two folders",
    )


class DataOptions(CommandSettings):
    """Data."""

    data_root: Path | None = option(
        None, help="folder that the YAML's paths start from (default: its DATA_ROOT)"
    )
    resize: WholeResize = option(
        "fit",
        help="fit = keep the aspect ratio inside --imgsz; stretch = fill it exactly; short = keep "
        "the aspect ratio, the short side is that of --imgsz",
    )


class CheckData(CommandSettings):
    """Read a whole data set and report all its faults.

    The last base of each kind's options: of several bases pydantic takes the last one's
    configuration, and this one lets a YAML's TRAIN mapping hold flags of the training command.
    """

    model_config = ConfigDict(extra="ignore")

    config: Path = option(
        Path("detection_configs/voc.yaml"), flags=["-c"], help="dataset YAML (X_configs/)"
    )
    data_root: Path | None = option(
        None, help="folder that the YAML's paths start from (default: its DATA_ROOT)"
    )
    out_dir: Path = option(
        Path("data_check"), help="sub-folder of outputs/ for report and pictures"
    )
    samples: int = option(16, ge=0, help="images in each picture of samples")
    workers: int = option(4, ge=1, help="threads that read images")
