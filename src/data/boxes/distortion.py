"""Changes of an image's colours and, for the preset ``strong``, of its geometry and quality."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

FILL = (124, 116, 104)  # ImageNet's mean colour: 0 after normalisation
LEAST_SIDE = 1.0  # a box smaller than this, in pixels of the model's input, is dropped
TURN, SHEAR = 7.0, 4.0  # degrees, to either side
QUALITY = (30, 80)  # of JPEG artefacts
NOISE = (5, 20)  # standard deviation, of 255
HOLES, HOLE = 4, (0.05, 0.15)  # at most so many, their sides as shares of the image's
_VISIBLE = 0.25  # of a box's area; where less is left, it goes
_GREY = np.array([0.299, 0.587, 0.114])
_TILE_STD = 32

Disturbed = tuple[np.ndarray, np.ndarray, np.ndarray]


def photometric(image: np.ndarray, rng: np.random.Generator, strength: float = 1) -> np.ndarray:
    """Brightness by up to 32, contrast and saturation by half, hue by 18 degrees, each half of
    the time, as SSD's distortion, all times ``strength``. All four are linear in the colours (hue
    turns about the grey axis), so that one 3x4 matrix makes them in one pass."""
    chance, amount = rng.random(4) < 0.5, rng.uniform(-1, 1, 4) * strength
    if not chance.any() or not strength:
        return image
    brightness, contrast, saturation, hue = chance * amount
    grey = np.broadcast_to(_GREY, (3, 3))
    colours = grey + (1 + 0.5 * saturation) * (_hue_matrix(18 * hue) - grey)
    matrix = np.concatenate([(1 + 0.5 * contrast) * colours, np.full((3, 1), 32 * brightness)], 1)
    return cv2.transform(image, matrix)


def _hue_matrix(degrees: float) -> np.ndarray:
    """A turn of the colours about the grey axis, [3, 3] (Rodrigues' formula)."""
    return cv2.Rodrigues(np.full(3, np.radians(degrees) / 3**0.5))[0]


def disturb(
    image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> Disturbed:
    """The preset ``strong``: a small turn and shear (half of the time), one of blur, noise, JPEG
    artefacts and grey (.4), holes (.3). uint8 [H, W, 3], float32 [N, 4], int64 [N]."""
    keep = np.ones(len(boxes), bool)
    if rng.random() < 0.5:
        image, boxes, keep = _turned(image, boxes, rng)
    if rng.random() < 0.4:
        worse = (_blurred, _noisy, _compressed, _grey)[int(rng.integers(4))]
        image = worse(image, rng)
    if rng.random() < 0.3:
        image, boxes_left = _holed(image, boxes, rng)
        keep &= boxes_left
    return image, boxes[keep], labels[keep]


def _turned(
    image: np.ndarray, boxes: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turned and sheared about the middle; boxes bound what theirs become. The last: of which
    boxes enough is left inside."""
    height, width = image.shape[:2]
    turn, shear_x, shear_y = np.radians(rng.uniform(-1, 1, 3) * (TURN, SHEAR, SHEAR))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    linear = rotation @ np.array([[1, np.tan(shear_x)], [np.tan(shear_y), 1]])
    middle = np.array([width, height]) / 2
    shift = middle - linear @ middle
    # cv2 counts from the middles of pixels, boxes from their corners.
    in_pixels = shift + linear @ (0.5, 0.5) - 0.5
    image = cv2.warpAffine(
        image,
        np.column_stack([linear, in_pixels]),
        (width, height),
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=FILL,
    )
    corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]] @ linear.T + shift  # [N, 4, 2]
    whole = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    moved = whole.clip(0, [width, height, width, height])
    sides = moved[:, 2:] - moved[:, :2]
    left = sides.prod(axis=1) >= _VISIBLE * (whole[:, 2:] - whole[:, :2]).prod(axis=1)
    return image, moved.astype(np.float32), left & (sides >= LEAST_SIDE).all(axis=1)


def _blurred(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    side = int(rng.choice([3, 5]))
    return cv2.GaussianBlur(image, (side, side), 0)


def _noisy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    tile = _noise_tile(height, width)
    top, left = rng.integers(0, 64, 2)
    share = float(rng.uniform(*NOISE)) / _TILE_STD
    noise = tile[top : top + height, left : left + width]
    return cv2.addWeighted(image, 1.0, noise, share, -128 * share)


@lru_cache(maxsize=4)
def _noise_tile(height: int, width: int) -> np.ndarray:
    """Normal noise around 128, made once (as much as all the rest of an image otherwise)."""
    noise = np.random.default_rng(0).normal(128, _TILE_STD, (height + 64, width + 64, 3))
    return noise.round().clip(0, 255).astype(np.uint8)


def _compressed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(QUALITY[0], QUALITY[1] + 1))]
    content = cv2.imencode(".jpg", np.ascontiguousarray(image), quality)[1]
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR))


def _grey(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def _holed(
    image: np.ndarray, boxes: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rectangles cut out; and which boxes are not covered by one of them."""
    height, width = image.shape[:2]
    image, left = image.copy(), np.ones(len(boxes), bool)
    areas = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-9)
    for _ in range(int(rng.integers(1, HOLES + 1))):
        sides = np.maximum(1, rng.uniform(*HOLE, 2) * (width, height)).astype(int)
        low = (rng.uniform(0, 1, 2) * ((width, height) - sides)).astype(int)
        image[low[1] : low[1] + sides[1], low[0] : low[0] + sides[0]] = FILL
        covered = np.minimum(boxes[:, 2:], low + sides) - np.maximum(boxes[:, :2], low)
        left &= covered.clip(0).prod(axis=1) <= (1 - _VISIBLE) * areas
    return image, left
