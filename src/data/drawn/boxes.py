"""A drawn data set to try everything on: shapes on textured ground, in VOC's format.

``python -m src.data.drawn.boxes`` draws that of detection_configs/demo.yaml.

Four classes with outlines of their own and hues that are typical of them, so that a small network
learns them in minutes on a CPU; shades, textures, sizes and angles are random.
Boxes come from the drawn pixels of the whole shape, so they are exact.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import cv2
import numpy as np

from ...core import cli
from ...core.errors import UserError
from ...core.files import require_writable, write_json
from ...core.structures import Size
from ..command_settings import DrawDemo
from ..common.images import encode_image

log = logging.getLogger(__name__)

NAMES = ["__background__", "circle", "square", "triangle", "cross"]
_VERSION = 3  # of the drawing: another number redraws what is there
MARKER = "complete.json"
_HUES = [0, 62, 112, 27]  # of OpenCV's 0..179: red, green, blue, yellow
_MOST_HIDDEN = 0.35  # of a shape, by later ones


class Scene(NamedTuple):
    """A picture and its truth: uint8 [H, W, 3] RGB; boxes of whole shapes float32 [N, 4] xyxy;
    labels int64 [N] from 1; which shape is seen, uint8 [H, W] from 1, 0 on the ground."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    seen: np.ndarray


@dataclass
class _Shape:
    label: int
    x: float
    y: float
    radius: float
    angle: float
    paint: np.ndarray  # uint8 [2, 3]: two colours
    period: int  # of the stripes; 0 = plain


def draw_dataset(folder: str | Path, train: int = 480, valid: int = 96, seed: int = 0) -> Path:
    """Draw ``train/{images,labels}`` and ``valid/{images,labels}`` below ``folder``; returns it.

    The same seed draws the same files. What is already complete is left as it is; what a crash
    left unfinished (the marker file is written last) or other numbers made is drawn again.
    """
    folder = Path(folder)
    wanted = {"version": _VERSION, "train": train, "valid": valid, "seed": seed}
    marker = folder / MARKER
    drawn = [file for split in ("train", "valid") for file in _drawn(folder / split)]
    if not begin_drawing(folder, wanted, drawn, (train + valid) * 20_000):
        return folder
    log.info("drawing %d + %d pictures into %s", train, valid, folder)
    for split_number, (split, count) in enumerate((("train", train), ("valid", valid))):
        for kind in ("images", "labels"):
            require_writable(folder / split / kind)
        for index in range(count):
            rng = np.random.default_rng((seed, split_number, index))
            size = Size(int(rng.integers(160, 257)), int(rng.integers(160, 257)))
            scene = draw_scene(size, rng)
            stem = f"{split}_{index:05d}"
            # Plain writes: the marker is what makes the set whole, and a sync a file is slow.
            jpeg = encode_image(scene.image, ".jpg")
            (folder / split / "images" / f"{stem}.jpg").write_bytes(jpeg)
            xml = voc_xml(f"{stem}.jpg", size, scene.boxes, scene.labels, NAMES)
            (folder / split / "labels" / f"{stem}.xml").write_text(xml, encoding="utf-8")
    write_json(marker, wanted)
    return folder


def begin_drawing(folder: Path, wanted: dict[str, Any], drawn: list[Path], size: int) -> bool:
    """Make room for a drawing with these numbers; False when the folder holds it already.

    The marker file is written first (unfinished) and, by the caller, last: it alone says that the
    files ``drawn``, of an earlier drawing, are ours to delete. UserError when there are such files
    without it, or when ``size`` bytes are not free.
    """
    marker = folder / MARKER
    try:
        if json.loads(marker.read_text(encoding="utf-8")) == wanted:
            return False
    except (OSError, ValueError):
        pass
    if drawn and not marker.exists():
        raise UserError(
            f"{folder} holds {drawn[0].name} and the like, named as the pictures to be drawn but "
            f"not drawn by this command (there is no {MARKER}): choose another --out"
        )
    require_writable(folder, size)
    write_json(marker, {"unfinished": wanted})
    for old in drawn:
        old.unlink()
    return True


def _drawn(split: Path) -> list[Path]:
    """The files of our naming: the folder may hold something of the user's."""
    return [
        *split.glob(f"images/{split.name}_*.jpg"),
        *split.glob(f"labels/{split.name}_*.xml"),
    ]


def voc_xml(
    filename: str, size: Size, boxes: np.ndarray, labels: np.ndarray, names: list[str]
) -> str:
    """VOC XML of boxes xyxy (x2, y2 exclusive): counted from 1, the last pixel included."""
    lines = [
        "<annotation>",
        f"  <filename>{escape(filename)}</filename>",
        f"  <size><width>{size.width}</width><height>{size.height}</height><depth>3</depth></size>",
    ]
    for (left, top, right, bottom), label in zip(boxes.tolist(), labels.tolist()):
        lines += [
            f"  <object><name>{escape(names[label])}</name><difficult>0</difficult><bndbox>",
            f"    <xmin>{left + 1:g}</xmin><ymin>{top + 1:g}</ymin>"
            f"<xmax>{right:g}</xmax><ymax>{bottom:g}</ymax>",
            "  </bndbox></object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def draw_scene(size: Size, rng: np.random.Generator) -> Scene:
    """One picture with 1 to 6 shapes of 24 to about 115 pixels, some of them overlapping."""
    image = _background(size, rng)
    wanted = int(rng.integers(1, 7))
    masks: list[np.ndarray] = []
    shapes: list[_Shape] = []
    for _ in range(wanted * 8):
        if len(shapes) == wanted:
            break
        shape = _random_shape(size, image, rng)
        mask = _mask(shape, size)
        hidden = [np.count_nonzero(mask & m) / np.count_nonzero(m) for m in masks]
        if max(hidden, default=0) > _MOST_HIDDEN:
            continue
        if any(np.count_nonzero(mask & m) > 0.6 * np.count_nonzero(mask) for m in masks):
            continue  # a shape on top of another one is no fair question
        masks = [m & ~mask for m in masks] + [mask]
        shapes.append(shape)
    for shape in shapes:
        _paint(image, shape, rng)
    noise = rng.normal(0, rng.uniform(0, 5), image.shape)
    image = (image + noise).clip(0, 255).astype(np.uint8)
    return Scene(image, *_truth(shapes, size))


def draw_frames(
    frames: int = 90, size: Size | tuple[int, int] = (256, 192), objects: int = 4, seed: int = 0
) -> Iterator[Scene]:
    """The frames of a video with moving shapes and their truth, for predict.video to write.

    Shapes bounce off the edges; the same seed draws the same frames. Even sides suit H.264.
    """
    size = Size(*size)
    rng = np.random.default_rng((seed, 2))
    ground = _background(size, rng)
    shapes = [_random_shape(size, ground, rng) for _ in range(objects)]
    speeds = rng.uniform(1, 4, (objects, 2)) * rng.choice([-1, 1], (objects, 2))
    for _ in range(frames):
        image = ground.copy()
        for shape in shapes:
            _paint(image, shape, np.random.default_rng(0))
        yield Scene(image, *_truth(shapes, size))
        for shape, speed in zip(shapes, speeds):
            shape.x, shape.y = shape.x + speed[0], shape.y + speed[1]
            if not shape.radius <= shape.x <= size.width - shape.radius:
                speed[0] = abs(speed[0]) * (1 if shape.x < shape.radius else -1)
            if not shape.radius <= shape.y <= size.height - shape.radius:
                speed[1] = abs(speed[1]) * (1 if shape.y < shape.radius else -1)


def _background(size: Size, rng: np.random.Generator) -> np.ndarray:
    """A dull, blotchy ground with a few lines for distraction."""
    base = rng.uniform(50, 200) + rng.uniform(-25, 25, 3)
    cells = int(rng.integers(3, 12))
    blotches = rng.uniform(-30, 30, (cells, cells, 3)).astype(np.float32)
    image = base + cv2.resize(blotches, size, interpolation=cv2.INTER_CUBIC)
    image = np.ascontiguousarray(image.clip(0, 255).astype(np.uint8))
    for _ in range(int(rng.integers(0, 4))):
        ends = rng.integers(0, max(size), 4).tolist()
        colour = rng.integers(0, 256, 3).tolist()
        cv2.line(image, ends[:2], ends[2:], colour, int(rng.integers(1, 3)), cv2.LINE_AA)
    return image


def _random_shape(size: Size, ground: np.ndarray, rng: np.random.Generator) -> _Shape:
    radius = float(np.exp(rng.uniform(np.log(14), np.log(0.36 * min(size)))))
    x = float(rng.uniform(radius, size.width - radius))
    y = float(rng.uniform(radius, size.height - radius))
    label = int(rng.integers(1, len(NAMES)))
    under = ground[int(y), int(x)].astype(float)
    for _ in range(100):  # a colour that stands out from what is under it
        colour = _class_colour(label, rng)
        if np.abs(colour - under).sum() > 170:
            break
    paint = np.stack([colour, (colour * rng.uniform(0.6, 0.9)).astype(int)]).astype(np.uint8)
    period = int(rng.choice([0, 0, 4, 6, 10]))
    return _Shape(label, x, y, radius, float(rng.uniform(-25, 25)), paint, period)


def _class_colour(label: int, rng: np.random.Generator) -> np.ndarray:
    """RGB of a random saturation and brightness, in the hues of the class (with some overlap)."""
    hue = (_HUES[label - 1] + rng.normal(0, 8)) % 180
    pixel = np.array([[[hue, rng.uniform(110, 255), rng.uniform(90, 255)]]]).astype(np.uint8)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].astype(int)


def _mask(shape: _Shape, size: Size) -> np.ndarray:
    """bool [H, W]: the pixels of the whole shape."""
    canvas = np.zeros((size.height, size.width), np.uint8)
    if shape.label == 1:
        centre = (round(shape.x * 16), round(shape.y * 16))
        cv2.circle(canvas, centre, round(shape.radius * 16), 1, -1, shift=4)
    else:
        unit = {
            2: [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
            3: [(0, -1), (0.87, 0.6), (-0.87, 0.6)],
            4: _cross(0.3),
        }[shape.label]
        turn = np.deg2rad(shape.angle)
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        points = np.array(unit) @ matrix.T * shape.radius + (shape.x, shape.y)
        cv2.fillPoly(canvas, [np.round(points * 16).astype(np.int32)], 1, shift=4)
    return canvas.astype(bool)


def _cross(w: float) -> list[tuple[float, float]]:
    quarter = [(w, -1.0), (w, -w), (1.0, -w)]
    points = []
    for _ in range(4):
        points += quarter
        quarter = [(-y, x) for x, y in quarter]
    return points


def _paint(image: np.ndarray, shape: _Shape, rng: np.random.Generator) -> None:
    size = Size(image.shape[1], image.shape[0])
    mask = _mask(shape, size)
    if shape.period:
        rows, columns = np.indices(mask.shape)
        turn = np.deg2rad(shape.angle * 3)
        along = (columns - shape.x) * np.cos(turn) + (rows - shape.y) * np.sin(turn)
        stripe = (along // shape.period % 2).astype(int)
        image[mask] = shape.paint[stripe[mask]]
    else:
        grain = rng.integers(-8, 9, (np.count_nonzero(mask), 1))
        image[mask] = (shape.paint[0].astype(int) + grain).clip(0, 255).astype(np.uint8)


def _truth(shapes: list[_Shape], size: Size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    boxes, labels = [], []
    seen = np.zeros((size.height, size.width), np.uint8)
    for shape in shapes:
        mask = _mask(shape, size)
        rows, columns = np.nonzero(mask)
        if len(rows):
            boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            labels.append(shape.label)
            seen[mask] = len(labels)
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), seen


def main() -> None:
    """The command: ``python -m src.data.drawn.boxes``."""
    cli.run(_command)


def _command() -> None:
    settings = cli.parse(DrawDemo, prog="python -m src.data.drawn.boxes")
    draw_dataset(settings.out, settings.train, settings.valid, settings.seed)
    usual = settings.out == DrawDemo.model_fields["out"].default
    flags = "--config detection_configs/demo.yaml"
    flags += "" if usual else f" --data-root {settings.out}"
    log.info("%s is complete; train with %s", settings.out, flags)


if __name__ == "__main__":
    main()
