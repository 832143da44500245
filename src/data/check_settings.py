"""Options of ``python -m src.data.check`` for masks, labels and depths, and of which kind a YAML is
(light: nothing heavy is imported here).

CheckData is the last base of each: of several bases pydantic takes the last one's configuration,
and its own lets a YAML's TRAIN mapping hold flags of the training command.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from src.core.config import CommandSettings, Settings, option
from src.data.depth_settings import DepthDataset, DepthFolders
from src.data.label_settings import LabelDataset
from src.data.mask_settings import FolderOptions, MaskDataset
from src.data.settings import BoxDataset, CheckData


class LabelFolders(CommandSettings):
    """Folders of classification (where the YAML does not name them)."""

    train_dir: Path | None = option(
        None, help="training images in a folder a class, or a CSV file of path,label"
    )
    valid_dir: Path | None = option(
        None, help="validation images in a folder a class, or a CSV file of path,label"
    )


class CheckSegmentation(FolderOptions, CheckData):
    """Read a whole segmentation data set and report all its faults and the pixels of classes."""

    dataset_class: ClassVar[type[Settings] | None] = MaskDataset


class CheckLabels(LabelFolders, CheckData):
    """Read a whole classification data set and report all its faults and the images of classes."""

    dataset_class: ClassVar[type[Settings] | None] = LabelDataset

    config: Path | None = option(  # type: ignore[assignment]
        None, flags=["-c"], help="dataset YAML (classification_configs/); not needed with folders"
    )


class CheckDepths(DepthFolders, CheckData):
    """Read a whole data set of depths and report all its faults and the metres in it."""

    dataset_class: ClassVar[type[Settings] | None] = DepthDataset


class CheckAny(CheckData, FolderOptions, DepthFolders, LabelFolders):
    """Read a whole data set of any task and report all its faults, with a picture of samples.

    What it is, boxes, masks, labels or depths, shows by the keys of the YAML.
    """


KINDS: dict[type[Settings], type[CheckData]] = {
    BoxDataset: CheckData,
    MaskDataset: CheckSegmentation,
    LabelDataset: CheckLabels,
    DepthDataset: CheckDepths,
}


def kind_of(keys: Iterable[str]) -> type[CheckData]:
    """The options for a data set with these keys: of the kind that knows the most of them (the
    first of KINDS in doubt)."""
    given = set(keys)
    known = {kind: len(given & set(kind.model_fields)) for kind in KINDS}
    return KINDS[max(known, key=lambda kind: known[kind])]
