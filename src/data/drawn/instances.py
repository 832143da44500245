"""A drawn data set whose objects have known masks: the shapes of ``boxes``, in COCO's formats.

``python -m src.data.drawn.instances`` draws that of segmentation_configs/demo_instance.yaml and
demo_panoptic.yaml. A mask is what is seen of a shape: those on top hide what is below them.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from ...core import cli
from ...core.files import require_writable, write_json
from ...core.structures import Size
from ..command_settings import DrawInstances
from ..common.images import encode_image
from ..instances import outlines
from .boxes import MARKER, NAMES, Scene, begin_drawing, draw_scene

log = logging.getLogger(__name__)

_VERSION = 1  # of the drawing: another number redraws what is there
GROUND = len(NAMES)  # category of the one class that is no thing


def draw_instance_dataset(
    folder: str | Path, train: int = 480, valid: int = 96, seed: int = 0
) -> Path:
    """Draw ``{train,valid}/images``, ``instances.json`` (run lengths), ``panoptic.json`` and its
    PNGs below ``folder``; returns it.

    The same seed draws the same files. What is already complete is left as it is.
    """
    folder = Path(folder)
    wanted = {"version": _VERSION, "train": train, "valid": valid, "seed": seed}
    drawn = [*folder.glob("*/images/shapes_*.jpg"), *folder.glob("*/panoptic/shapes_*.png")]
    if not begin_drawing(folder, wanted, drawn, (train + valid) * 25_000):
        return folder
    log.info("drawing %d + %d pictures into %s", train, valid, folder)
    for number, (split, count) in enumerate((("train", train), ("valid", valid))):
        for kind in ("images", "panoptic"):
            require_writable(folder / split / kind)
        images: list[dict[str, Any]] = []
        objects: list[dict[str, Any]] = []
        pictures: list[dict[str, Any]] = []
        for index in range(count):
            rng = np.random.default_rng((seed, number, index))
            size = Size(int(rng.integers(160, 257)), int(rng.integers(160, 257)))
            scene = draw_scene(size, rng)
            stem = f"shapes_{index:05d}"
            jpeg = encode_image(scene.image, ".jpg")
            (folder / split / "images" / f"{stem}.jpg").write_bytes(jpeg)
            (folder / split / "panoptic" / f"{stem}.png").write_bytes(_png(scene.seen))
            image = {"id": index + 1, "width": size.width, "height": size.height}
            images.append({**image, "file_name": f"{stem}.jpg"})
            found = _objects(scene, index + 1)
            objects += [{"id": len(objects) + i, **one} for i, one in enumerate(found, 1)]
            pictures.append(_picture(scene, found, index + 1, f"{stem}.png"))
        things = [{"id": i, "name": name, "isthing": 1} for i, name in enumerate(NAMES) if i]
        write_json(
            folder / split / "instances.json",
            {"images": images, "annotations": objects, "categories": things},
        )
        ground = {"id": GROUND, "name": "ground", "isthing": 0}
        write_json(
            folder / split / "panoptic.json",
            {"images": images, "annotations": pictures, "categories": [*things, ground]},
        )
    write_json(folder / MARKER, wanted)
    return folder


def _objects(scene: Scene, image: int) -> list[dict[str, Any]]:
    """COCO's annotations of what is seen of the shapes."""
    masks = scene.seen == np.arange(1, len(scene.labels) + 1)[:, None, None]
    rles = outlines.to_rles(masks)
    boxes = outlines.mask_boxes(rles)
    return [
        {
            "image_id": image,
            "category_id": int(label),
            "segmentation": outlines.as_text(rle),
            "area": int(mask.sum()),
            "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
            "iscrowd": 0,
        }
        for label, rle, box, mask in zip(scene.labels, rles, boxes, masks)
    ]


def _picture(scene: Scene, found: list[dict[str, Any]], image: int, file: str) -> dict[str, Any]:
    """COCO's panoptic annotation: segment n + 1 is shape n, 1 is the ground."""
    ground = {"category_id": GROUND, "area": int((scene.seen == 0).sum())}
    things = [{"category_id": one["category_id"], "area": one["area"]} for one in found]
    segments = [
        {"id": number, "iscrowd": 0, **one} for number, one in enumerate([ground, *things], 1)
    ]
    return {"image_id": image, "file_name": file, "segments_info": segments}


def _png(seen: np.ndarray) -> bytes:
    """The numbers of segments as a PNG's red."""
    colours = np.zeros((*seen.shape, 3), np.uint8)
    colours[..., 0] = seen + 1
    return encode_image(colours, ".png")


def main() -> None:
    """The command: ``python -m src.data.drawn.instances``."""
    cli.run(_command)


def _command() -> None:
    settings = cli.parse(DrawInstances, prog="python -m src.data.drawn.instances")
    draw_instance_dataset(settings.out, settings.train, settings.valid, settings.seed)
    usual = settings.out == DrawInstances.model_fields["out"].default
    flags = "--config segmentation_configs/demo_instance.yaml"
    flags += "" if usual else f" --data-root {settings.out}"
    log.info("%s is complete; train with %s (or demo_panoptic.yaml)", settings.out, flags)


if __name__ == "__main__":
    main()
