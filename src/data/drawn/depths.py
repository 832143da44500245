"""A drawn data set whose depth is known: rooms with balls and boxes on the floor.

``python -m src.data.drawn.depths`` draws that of depth_configs/demo.yaml. Each pixel's ray
is met with the planes of a room and with the things in it, so depth (along the viewing axis, in
metres) is exact. What tells it in the picture is what tells it in photographs: perspective (tiles
of half a metre), where things touch the floor, shade, and haze.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ...core import cli
from ...core.files import require_writable, write_json
from ...core.structures import Size
from ..common.images import encode_image
from ..depths.reader import write_depth
from ..depths.settings import DrawDepthDemo
from .boxes import MARKER, begin_drawing

log = logging.getLogger(__name__)

SIZE = Size(160, 120)
_VERSION = 1  # of the drawing: another number redraws what is there
_EYE, _CEILING = 1.4, 2.7  # metres above the floor
_TILE = 0.5
_LIGHT = np.array([0.35, -0.8, -0.5])
_HAZE = np.array([205.0, 210, 220])
_HAZE_LENGTH = 9.0
_FAR = 1e6


class DepthScene(NamedTuple):
    """A picture and its truth: uint8 [H, W, 3] RGB, float32 [H, W] metres (0 = not measured)."""

    image: np.ndarray
    depth: np.ndarray


class _Hit(NamedTuple):
    """What rays meet: depth [H, W], normal [H, W, 3], colour [H, W, 3]."""

    depth: np.ndarray
    normal: np.ndarray
    colour: np.ndarray


def draw_depth_dataset(
    folder: str | Path, train: int = 320, valid: int = 64, seed: int = 0, size: Size = SIZE
) -> Path:
    """Draw ``{train,valid}/{images,depths}`` below ``folder`` (PNG of millimetres); returns it.

    The same seed draws the same files. What is already complete is left as it is.
    """
    folder = Path(folder)
    wanted = {"version": _VERSION, "train": train, "valid": valid, "seed": seed, "size": list(size)}
    drawn = [*folder.glob("*/images/room_*.jpg"), *folder.glob("*/depths/room_*.png")]
    if not begin_drawing(folder, wanted, drawn, (train + valid) * 40_000):
        return folder
    log.info("drawing %d + %d scenes into %s", train, valid, folder)
    for number, (split, count) in enumerate((("train", train), ("valid", valid))):
        images, depths = (require_writable(folder / split / k) for k in ("images", "depths"))
        for index in range(count):
            scene = draw_room(size, np.random.default_rng((seed, number, index)))
            (images / f"room_{index:04d}.jpg").write_bytes(encode_image(scene.image, ".jpg"))
            write_depth(depths / f"room_{index:04d}.png", scene.depth)
    write_json(folder / MARKER, wanted)
    return folder


def draw_room(size: Size, rng: np.random.Generator) -> DepthScene:
    """A room of 3 to 9.5 m with 1 to 5 things in it; a few patches are not measured."""
    rays = _rays(size, float(rng.uniform(-0.06, 0.06)))
    left, right, back = -rng.uniform(1.2, 3), rng.uniform(1.2, 3), rng.uniform(3, 9.5)
    hits = [
        _plane(rays, axis, float(offset), rng)
        for axis, offset in ((1, _EYE), (1, _EYE - _CEILING), (0, left), (0, right), (2, back))
    ]
    for _ in range(int(rng.integers(1, 6))):
        radius = float(rng.uniform(0.2, 0.5))
        z = float(rng.uniform(1.4, back - radius))
        x = float(rng.uniform(max(left + radius, -z * 0.6), min(right - radius, z * 0.6)))
        thing = _ball if rng.random() < 0.5 else _box
        hits.append(thing(rays, np.array([x, _EYE - radius, z]), radius, rng))
    nearest = np.argmin([hit.depth for hit in hits], axis=0)
    rows, columns = np.indices(nearest.shape)
    depth = np.stack([hit.depth for hit in hits])[nearest, rows, columns]
    normal = np.stack([hit.normal for hit in hits])[nearest, rows, columns]
    colour = np.stack([hit.colour for hit in hits])[nearest, rows, columns]
    image = _shade(depth, normal, colour, rng)
    truth = depth.astype(np.float32)
    for _ in range(int(rng.integers(0, 4))):  # as sensors have them
        y, x = int(rng.integers(0, size.height - 8)), int(rng.integers(0, size.width - 8))
        truth[y : y + int(rng.integers(3, 12)), x : x + int(rng.integers(3, 12))] = 0
    return DepthScene(image, truth)


def _rays(size: Size, pitch: float) -> np.ndarray:
    """Directions [H, W, 3] (x right, y down, z ahead; z = 1 in the camera's axes), 62 degrees
    wide, tilted by ``pitch``: the room's axes are the camera's but for that, so depth is the
    factor of a ray."""
    x = (np.arange(size.width) + 0.5 - size.width / 2) / (size.width * 0.83)
    y = (np.arange(size.height) + 0.5 - size.height / 2) / (size.width * 0.83)
    grid = np.stack([*np.meshgrid(x, y), np.ones((size.height, size.width))], axis=-1)
    cosine, sine = np.cos(pitch), np.sin(pitch)
    turned = grid.copy()
    turned[..., 1] = cosine * grid[..., 1] + sine * grid[..., 2]
    turned[..., 2] = -sine * grid[..., 1] + cosine * grid[..., 2]
    return turned


def _paint(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(70, 235, 3)


def _plane(rays: np.ndarray, axis: int, offset: float, rng: np.random.Generator) -> _Hit:
    """The plane coordinate[axis] = offset, with tiles in two shades."""
    along = rays[..., axis]
    depth = np.where(along * offset > 1e-9, offset / np.where(along == 0, 1, along), _FAR)
    place = rays * np.minimum(depth, 100)[..., None]
    tiles = sum(np.floor(place[..., i] / _TILE + 1e-6) for i in range(3) if i != axis)
    shade = np.where(np.asarray(tiles) % 2 == 0, 1.0, float(rng.uniform(0.6, 0.85)))
    normal = np.zeros(rays.shape)
    normal[..., axis] = -np.sign(offset)
    return _Hit(depth, normal, _paint(rng) * shade[..., None])


def _ball(rays: np.ndarray, centre: np.ndarray, radius: float, rng: np.random.Generator) -> _Hit:
    a = (rays**2).sum(-1)
    b = rays @ centre
    root = b**2 - a * (centre @ centre - radius**2)
    depth = np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, _FAR)
    normal = (rays * np.minimum(depth, 100)[..., None] - centre) / radius
    return _Hit(depth, normal, np.broadcast_to(_paint(rng), rays.shape))


def _box(rays: np.ndarray, centre: np.ndarray, radius: float, rng: np.random.Generator) -> _Hit:
    """A box on the floor with sides along the room's, of random proportions."""
    half = np.array([radius * rng.uniform(0.6, 1), radius, radius * rng.uniform(0.6, 1)])
    safe = np.where(np.abs(rays) < 1e-9, 1e-9, rays)
    first, second = (centre - half) / safe, (centre + half) / safe
    near, far = np.minimum(first, second), np.maximum(first, second)
    enter = near.max(-1)
    depth = np.where((enter < far.min(-1)) & (enter > 0), enter, _FAR)
    normal = np.eye(3)[near.argmax(-1)] * -np.sign(rays)
    return _Hit(depth, normal, np.broadcast_to(_paint(rng), rays.shape))


def _shade(
    depth: np.ndarray, normal: np.ndarray, colour: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """uint8 [H, W, 3]: lit from the upper left, haze by depth, some noise."""
    light = 0.55 + 0.45 * np.clip(normal @ (_LIGHT / np.linalg.norm(_LIGHT)), 0, 1)
    clear = np.exp(-depth / _HAZE_LENGTH)[..., None]
    image = colour * light[..., None] * clear + _HAZE * (1 - clear)
    image = cv2.GaussianBlur(image, (0, 0), 0.5) + rng.normal(0, 2.5, image.shape)
    return image.clip(0, 255).astype(np.uint8)


def main() -> None:
    """The command: ``python -m src.data.drawn.depths``."""
    cli.run(_command)


def _command() -> None:
    settings = cli.parse(DrawDepthDemo, prog="python -m src.data.drawn.depths")
    draw_depth_dataset(settings.out, settings.train, settings.valid, settings.seed)
    log.info("%s is complete; train with --config depth_configs/demo.yaml", settings.out)


if __name__ == "__main__":
    main()
