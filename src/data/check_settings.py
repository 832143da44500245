"""Options of ``python -m src.data.check`` for masks, labels and depths, and of which kind a YAML is
(light: nothing heavy is imported here).

CheckData is the last base of each: of several bases pydantic takes the last one's configuration,
and its own lets a YAML's TRAIN mapping hold flags of the training command.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict

from ..core.config import CommandSettings, Settings, option
from .boxes.settings import BoxDataset
from .depths.settings import DepthDataset, DepthFolders
from .labels.settings import LabelDataset, LabelFolders
from .masks.settings import FolderOptions, MaskDataset


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
