"""Sets of boxes on real photographs, made of CamVid's masks: connected parts of a class.

    python -m benchmarks.camvid_boxes --data-root ../shared/data/camvid --out input/camvid_boxes

writes three VOC sets, each with its ``dataset.yaml`` for ``--config``: ``cars`` (one class, mostly
small), ``closeups`` (one class, large: windows around cars, a quarter to the whole of a picture)
and ``street`` (cars, pedestrians, bicyclists, signs). Pictures are frames of drives, so train and
valid take turns in runs of frames: 2 to 1. Boxes of parts that touch one another are joined, which
is noise that all who train on them share.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from src.core.cli import parse, run
from src.core.config import CommandSettings, option, to_yaml
from src.core.files import require_writable, write_text
from src.core.structures import Size
from src.data.boxes.settings import BoxDataset
from src.data.common.images import encode_image, read_image
from src.data.drawn.boxes import voc_xml

log = logging.getLogger(__name__)

CLASSES = {"car": 8, "pedestrian": 9, "bicyclist": 10, "sign": 6}  # as the masks count
LEAST_SIDE, LEAST_PIXELS = 8, 60  # of a part, in pixels of the 320x240 pictures
BLOCK = 12  # frames in a row that stay together
CLOSE_SIDE = 30  # of a car worth a close-up
Sample = tuple[str, np.ndarray, np.ndarray, np.ndarray]  # stem, image, boxes, labels from 1


class BoxesOptions(CommandSettings):
    """Boxes of CamVid's objects, as VOC data sets."""

    data_root: Path = option(Path("../shared/data/camvid"), help="CamVid, as it is in ../shared")
    out: Path = option(Path("input/camvid_boxes"), help="folder of the three sets")
    train: int = option(160, ge=1, help="training pictures of a set, at most")
    valid: int = option(100, ge=1, help="validation pictures of a set, at most")


def parts(mask: np.ndarray, classes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes float32 [N, 4] xyxy and labels int64 [N] (from 1) of the connected parts."""
    boxes, labels = [], []
    for label, value in enumerate(classes, start=1):
        found = cv2.connectedComponentsWithStats((mask == value).astype(np.uint8))[2][1:]
        for left, top, width, height, pixels in found.tolist():
            if min(width, height) >= LEAST_SIDE and pixels >= LEAST_PIXELS:
                boxes.append([left, top, left + width, top + height])
                labels.append(label)
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64)


def frames(options: BoxesOptions, split: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Stem, image and mask of each frame of a split."""
    images = [p for s in ("train", "valid") for p in (options.data_root / f"{s}_images").iterdir()]
    for number, path in enumerate(sorted(images, key=lambda p: p.name)):
        if (number // BLOCK % 3 == 2) == (split == "valid"):
            mask = path.parent.with_name(path.parent.name.replace("images", "masks")) / path.name
            values = cv2.imread(str(mask.with_suffix(".png")), cv2.IMREAD_GRAYSCALE)
            yield path.stem, read_image(path), values


def whole(options: BoxesOptions, split: str, classes: Sequence[int]) -> Iterator[Sample]:
    """Frames with something on them."""
    for stem, image, mask in frames(options, split):
        boxes, labels = parts(mask, classes)
        if len(boxes):
            yield stem, image, boxes, labels


def closeups(options: BoxesOptions, split: str) -> Iterator[Sample]:
    """A window around each large car, the car anywhere in it; boxes that mostly show stay."""
    rng = np.random.default_rng(0)
    for stem, image, mask in frames(options, split):
        boxes, _ = parts(mask, [CLASSES["car"]])
        limits = np.array([image.shape[1], image.shape[0]])
        for number, box in enumerate(boxes):
            if min(box[2:] - box[:2]) < CLOSE_SIDE:
                continue
            sides = np.minimum((box[2:] - box[:2]).max() * rng.uniform(1.1, 2.2, 2), limits)
            low = np.maximum(0, box[2:] - sides)
            corner = rng.uniform(low, np.maximum(low, np.minimum(box[:2], limits - sides)))
            window = np.concatenate([corner, corner + sides]).round().astype(int)
            left, top, right, bottom = window.tolist()
            factor = 320 / max(right - left, bottom - top)
            part = cv2.resize(image[top:bottom, left:right], None, fx=factor, fy=factor)
            edges = np.array([part.shape[1], part.shape[0]] * 2)
            moved = ((boxes - [left, top, left, top]) * factor).clip(0, edges)
            area = (moved[:, 2:] - moved[:, :2]).prod(axis=1)
            shown = area > 0.4 * factor**2 * (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
            kept = moved[shown].round().astype(np.float32)  # whole pixels: some read nothing else
            yield f"{stem}_{number}", part, kept, np.ones(len(kept), np.int64)


def write_set(folder: Path, names: list[str], train: list[Sample], valid: list[Sample]) -> None:
    """Images, XML files and the YAML of a set."""
    for split, samples in (("train", train), ("valid", valid)):
        images, labels = folder / split / "images", folder / split / "labels"
        require_writable(images)
        require_writable(labels)
        for stem, image, boxes, classes in samples:
            (images / f"{stem}.jpg").write_bytes(encode_image(image, ".jpg"))
            size = Size(image.shape[1], image.shape[0])
            xml = voc_xml(f"{stem}.jpg", size, boxes, classes, ["__background__", *names])
            write_text(labels / f"{stem}.xml", xml)
        log.info("%s: %d pictures, %d boxes", images, len(samples), sum(len(s[2]) for s in samples))
    kinds = {"IMG": "images", "ANNOT": "labels"}
    content = {f"{s.upper()}_{k}": f"{s}/{v}" for s in ("train", "valid") for k, v in kinds.items()}
    dataset = BoxDataset.model_validate(
        {"DATA_ROOT": folder.resolve(), "CLASSES": ["__background__", *names], **content}
    )
    write_text(folder / "dataset.yaml", to_yaml(dataset))


def spread(samples: list[Sample], most: int) -> list[Sample]:
    """At most so many, evenly from the whole."""
    keep = np.linspace(0, len(samples) - 1, min(most, len(samples))).round().astype(int)
    return [samples[i] for i in keep]


def write_sets(options: BoxesOptions) -> None:
    """All three sets."""
    for name, names in (("cars", ["car"]), ("closeups", ["car"]), ("street", list(CLASSES))):
        splits = []
        for split, most in (("train", options.train), ("valid", options.valid)):
            values = [CLASSES[one] for one in names]
            made = closeups(options, split) if name == "closeups" else whole(options, split, values)
            splits.append(spread(list(made), most))
        write_set(options.out / name, names, *splits)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    run(lambda: write_sets(parse(BoxesOptions, argv, "python -m benchmarks.camvid_boxes")))


if __name__ == "__main__":
    main()
