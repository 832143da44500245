"""What dataset YAMLs and data options of several tasks share (light: nothing heavy is imported)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, field_validator, model_validator

from ...core.config import CommandSettings, Settings, option
from ...core.structures import WholeResize

log = logging.getLogger(__name__)


class Strengths(Settings):
    """How strong the presets of ``--augment`` are."""

    flip: float = Field(
        default=0.5, ge=0, le=1, description="share of the images mirrored left to right"
    )
    flip_updown: float = Field(
        default=0.0, ge=0, le=1, description="share turned upside down by a mirror"
    )
    colour: float = Field(
        default=1.0, ge=0, le=2, description="factor on changes of colour; 0 = none"
    )
    scale: tuple[float, float] | None = Field(
        default=None,
        description="least and largest size of lsj and jitter; share of the area in a crop",
    )

    @field_validator("scale")
    @classmethod
    def _ordered(cls, scale: tuple[float, float] | None) -> tuple[float, float] | None:
        if scale is not None and not 0 < scale[0] <= scale[1]:
            raise ValueError("two numbers above 0, the smaller first")
        return scale

    def named(self) -> dict[str, Any]:
        """Those that the YAML sets, as cache keys and warnings take them."""
        return self.model_dump(exclude_unset=True)

    def mirrors(self, rng: Any) -> tuple[bool, bool]:
        """Whether an image is mirrored left to right, and upside down; rng: numpy's Generator."""
        return rng.random() < self.flip, bool(self.flip_updown and rng.random() < self.flip_updown)

    def warn_idle(self, preset: str, used: str) -> None:
        """Say which of those named have no effect with a preset; used: words of those that have."""
        idle = sorted(set(self.named()) - set(used.split()))
        if idle:
            log.warning("AUGMENT: %s has no effect with --augment %s", ", ".join(idle), preset)


class AugmentedDataset(Settings):
    """A data set that training augments."""

    AUGMENT: Strengths = Field(
        Strengths(), description="strengths of --augment: flip, flip_updown, colour, scale"
    )

    @field_validator("AUGMENT", mode="before")
    @classmethod
    def _no_preset(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(
                f"strengths, e.g. {{flip: 0}}; a preset is TRAIN: {{augment: {value}}}"
            )
        return value


class BandDataset(AugmentedDataset):
    """Images of any number of channels, and their statistics."""

    CHANNELS: int = Field(3, ge=1, le=128, description="channels of the images")
    MEAN: list[float] | None = Field(
        None, description="mean of each channel, in [0, 1] (integers: of their largest value)"
    )
    STD: list[float] | None = Field(None, description="standard deviation of each channel")

    @model_validator(mode="after")
    def _one_of_each_channel(self) -> BandDataset:
        for key in ("MEAN", "STD"):
            values = getattr(self, key)
            if values is None and self.CHANNELS != 3:
                raise ValueError(f"CHANNELS {self.CHANNELS} needs MEAN and STD, a number each")
            if values is not None and len(values) != self.CHANNELS:
                raise ValueError(f"{key} has {len(values)} numbers for {self.CHANNELS} CHANNELS")
        if min(self.STD or [1.0]) <= 0:
            raise ValueError("STD: each number must be above 0")
        return self


class PairDataset(AugmentedDataset):
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
