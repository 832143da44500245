"""The dataset YAML of segmentation (light: nothing heavy is imported here)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from ...core.config import CommandSettings, Settings, option
from ..common.settings import BandDataset, CheckData, PairDataset

Colour = tuple[int, int, int]
MOST_CLASSES = 255  # indices are bytes, and 255 is kept for pixels without a class


class MaskDataset(BandDataset, PairDataset):
    """A segmentation data set: the tutorial's keys, and those of further layouts."""

    TRAIN_MASKS: Path | None = Field(None, description="folder of training masks")
    VALID_MASKS: Path | None = Field(None, description="folder of validation masks")
    TEST_MASKS: Path | None = Field(None, description="folder of test masks")
    MASK_SUFFIX: str = Field("", description="end of mask stems that is no part of the name")

    ALL_CLASSES: list[str] = Field(description="class names, by index")
    LABEL_COLORS_LIST: list[list[Colour]] | None = Field(
        None,
        description="[R, G, B] of each class in colour-coded masks, or several: [[R, G, B], ...]",
    )
    VIS_LABEL_MAP: list[Colour] | None = Field(
        None,
        description="[R, G, B] of each class in pictures (default: its first of LABEL_COLORS_LIST)",
    )
    MASK_FORMAT: Literal["auto", "index", "color", "binary"] = Field(
        "auto",
        description="index = a class index a pixel; color = a colour of LABEL_COLORS_LIST; binary "
        "= 0 is the first class, all else the second; auto = index or color, by all of a split",
    )
    IGNORE_INDEX: int | list[int] = Field(
        255, description="index (or several) in the files of pixels without a class"
    )
    IGNORE_COLORS: list[Colour] = Field([], description="colours of pixels without a class")
    OTHERS: str | None = Field(
        None,
        description="what colours and indices that no class has are: 'void' (without a class) or "
        "the name of a class; default: an error",
    )
    FIRST_INDEX: int = Field(0, ge=0, description="index of the first class in the files")
    INDEX_MAP: dict[int, int] | None = Field(
        None, description="index in the files -> class index, where they are not simply shifted"
    )
    CLASS_WEIGHTS: list[float] | None = Field(
        None, description="weight of each class in the cross-entropy"
    )

    @field_validator("LABEL_COLORS_LIST", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        """A class's one colour as a list of one."""

        def several(entry: Any) -> Any:
            plain = isinstance(entry, (list, tuple)) and entry
            return [entry] if plain and not isinstance(entry[0], (list, tuple)) else entry

        return [several(entry) for entry in value] if isinstance(value, list) else value

    @model_validator(mode="after")
    def _lengths(self) -> MaskDataset:
        count = len(self.ALL_CLASSES)
        repeated = sorted({n for n in self.ALL_CLASSES if self.ALL_CLASSES.count(n) > 1})
        if repeated:
            raise ValueError(f"ALL_CLASSES names {', '.join(repeated)} more than once")
        if not 2 <= count <= MOST_CLASSES:
            raise ValueError(f"ALL_CLASSES must name 2 to {MOST_CLASSES} classes, not {count}")
        for key in ("LABEL_COLORS_LIST", "VIS_LABEL_MAP", "CLASS_WEIGHTS"):
            values = getattr(self, key)
            if values is not None and len(values) != count:
                raise ValueError(f"{key} has {len(values)} entries for {count} classes")
        colours = [colour for entry in self.LABEL_COLORS_LIST or [] for colour in entry]
        for key, entries in (
            ("LABEL_COLORS_LIST", colours),
            ("VIS_LABEL_MAP", self.VIS_LABEL_MAP or []),
            ("IGNORE_COLORS", self.IGNORE_COLORS),
        ):
            if any(not 0 <= part <= 255 for entry in entries for part in entry):
                raise ValueError(f"{key}: colours are three numbers from 0 to 255")
        if not all(self.LABEL_COLORS_LIST or []):
            raise ValueError("LABEL_COLORS_LIST has a class without a colour")
        if len(set(colours)) < len(colours):
            raise ValueError("LABEL_COLORS_LIST names a colour twice")
        if self.OTHERS not in (None, "void", *self.ALL_CLASSES):
            raise ValueError(f"OTHERS is 'void' or a class of ALL_CLASSES, not {self.OTHERS!r}")
        if self.OTHERS is not None and self.MASK_FORMAT == "binary":
            raise ValueError("OTHERS does nothing with MASK_FORMAT binary: all but 0 is a class")
        if self.MASK_FORMAT == "color" and not colours:
            raise ValueError("MASK_FORMAT color needs LABEL_COLORS_LIST")
        if self.MASK_FORMAT == "binary" and count != 2:
            raise ValueError(f"MASK_FORMAT binary is for 2 classes, not {count}")
        if any(not 0 <= index < count for index in (self.INDEX_MAP or {}).values()):
            raise ValueError(f"INDEX_MAP leads to a class beyond 0 to {count - 1}")
        return self

    @property
    def names(self) -> list[str]:
        """Class names by index."""
        return self.ALL_CLASSES

    @property
    def ignored(self) -> list[int]:
        """The indices in the files of pixels without a class."""
        value = self.IGNORE_INDEX
        return value if isinstance(value, list) else [value]

    @property
    def colours(self) -> list[Colour] | None:
        """Colours for pictures, by class index; None: those of ``visualise.draw``."""
        first = [entry[0] for entry in self.LABEL_COLORS_LIST or []]
        return self.VIS_LABEL_MAP or first or None


class FolderOptions(CommandSettings):
    """Folders (where the YAML does not name them)."""

    train_images: Path | None = option(None, help="folder of training images")
    train_masks: Path | None = option(None, help="folder of training masks")
    valid_images: Path | None = option(None, help="folder of validation images")
    valid_masks: Path | None = option(None, help="folder of validation masks")

    def folders_of(self, split: str) -> tuple[Path | None, Path | None]:
        """The flags of a split: images and masks."""
        return getattr(self, f"{split}_images"), getattr(self, f"{split}_masks")


class CheckMasks(FolderOptions, CheckData):
    """Read a whole segmentation data set and report all its faults and the pixels of classes."""

    dataset_class: ClassVar[type[Settings] | None] = MaskDataset
