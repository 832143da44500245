"""The dataset YAML of instance and panoptic segmentation (light: nothing heavy is imported)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from ..boxes.settings import BoxDataset

# Formats of masks. Each is a file of its name beside this one, whose ``read(images, annotations,
# listed, dataset)`` answers records and faults.
FORMATS = ("coco", "panoptic", "voc", "yolo")


class InstanceDataset(BoxDataset):
    """Objects with masks: the keys of a detection data set, whose COCO and YOLO files hold them.

    *_ANNOT: coco: a JSON of instances; panoptic: a JSON whose PNGs lie beside it in a folder of its
    name; voc: SegmentationObject, with SegmentationClass beside it; yolo: a folder of TXT files.
    """

    formats: ClassVar[tuple[str, ...]] = FORMATS

    FORMAT: str = Field("coco", description=f"annotation format: {', '.join(FORMATS)}")
    STUFF_CLASSES: list[str] = Field(
        [], description="those of CLASSES that are no things: one segment an image (panoptic)"
    )

    @model_validator(mode="after")
    def _stuff_is_known(self) -> InstanceDataset:
        unknown = [name for name in self.STUFF_CLASSES if name not in self.names]
        if unknown:
            raise ValueError(f"STUFF_CLASSES names {', '.join(unknown)}, which CLASSES lacks")
        return self

    @property
    def names(self) -> list[str]:
        """Class names by index, without ``__background__``."""
        return self.CLASSES[1:]

    @property
    def stuff(self) -> list[int]:
        """Indices of ``STUFF_CLASSES``."""
        return [self.names.index(name) for name in self.STUFF_CLASSES]
