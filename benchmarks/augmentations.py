"""What each preset of train_detection.py's --augment does, as a picture: a row a preset.

    python -m benchmarks.augmentations --config detection_configs/bccd.yaml \
        --data-root ../shared/data/bccd --out docs/images/augmentations.jpg

The strengths of the YAML's AUGMENT are taken, so that a change of them can be looked at.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, get_args

from pydantic import ConfigDict

from src.core.cli import parse, run
from src.core.config import CommandSettings, Settings, Sides, option
from src.core.structures import Size
from src.data.boxes.mixes import MosaicTransform
from src.data.boxes.reader import read_split
from src.data.boxes.settings import BoxDataset
from src.data.boxes.transforms import Preset, box_transform
from src.data.common.images import write_image
from src.visualise.draw import contact_sheet, draw_detections


class AugmentationsOptions(CommandSettings):
    """Draw what augmentation presets do to a picture."""

    model_config = ConfigDict(extra="ignore")  # the YAML's TRAIN holds flags of training
    dataset_class: ClassVar[type[Settings] | None] = BoxDataset

    config: Path = option(Path("detection_configs/bccd.yaml"), help="dataset YAML")
    data_root: Path | None = option(None, help="folder that the YAML's paths start from")
    image: int = option(0, ge=0, help="which of the training images")
    samples: int = option(6, ge=1, help="pictures of each preset")
    imgsz: Sides = option([320, 240], help="width and height")
    out: Path = option(Path("outputs/augmentations.jpg"), help="picture to write")


def draw(options: AugmentationsOptions) -> None:
    """A sheet: presets from top to bottom, each with ``samples`` seeds."""
    records, _ = read_split(options.dataset, "train", options.data_root)
    names, size, strengths = options.dataset.names, Size(*options.imgsz), options.dataset.AUGMENT
    transforms: dict[str, Any] = {
        preset: box_transform(preset, size, "fit", True, strengths) for preset in get_args(Preset)
    }
    transforms["mosaic"] = MosaicTransform(records, size, "fit", strengths)
    pictures, captions = [], []
    for preset, transform in transforms.items():
        for seed in range(options.samples):
            image, target, _ = transform.load(records[options.image % len(records)], seed)
            pictures.append(draw_detections(image, target["boxes"], target["labels"], names))
            captions.append(f"--augment {preset}" if seed == 0 else "")
    write_image(options.out, contact_sheet(pictures, options.samples, captions, cell=200))


if __name__ == "__main__":
    run(lambda: draw(parse(AugmentationsOptions, prog="python -m benchmarks.augmentations")))
