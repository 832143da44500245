"""Boxes follow their pixels through every preset."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.core.structures import Size
from src.data.boxes.distortion import disturb, photometric
from src.data.boxes.transforms import BoxTransform, box_transform

GROUND, OBJECT = 60, 250  # grey levels that stay apart through all photometric changes
PRESETS = ["none", "flip", "ssd", "lsj", "strong"]
BUILT: dict[tuple, BoxTransform] = {}


def transform_of(preset, size, mode) -> BoxTransform:
    key = (preset, size, mode)
    if key not in BUILT:
        BUILT[key] = box_transform(preset, Size(*size), mode)
    return BUILT[key]


@st.composite
def scenes(draw):
    """An image with one painted rectangle, far enough from small."""
    width, height = draw(st.integers(60, 300)), draw(st.integers(60, 300))
    left, top = draw(st.integers(0, width - 30)), draw(st.integers(0, height - 30))
    right, bottom = draw(st.integers(left + 24, width)), draw(st.integers(top + 24, height))
    image = np.full((height, width, 3), GROUND, np.uint8)
    image[top:bottom, left:right] = OBJECT
    return image, np.float32([[left, top, right, bottom]])


common = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("mode", ["fit", "stretch"])
@pytest.mark.parametrize("preset", ["none", "flip", "ssd", "lsj"])
@common
@given(scene=scenes(), seed=st.integers(0, 2**31))
def test_box_is_the_bounds_of_its_pixels(preset, mode, scene, seed):
    image, boxes = scene
    out, moved, labels, _ = transform_of(preset, (160, 128), mode)(
        image, boxes, np.array([3]), seed
    )
    if not len(moved):
        return  # cut away; how often is tested below
    # The object's level after the photometric changes, the lightest of all others, and the
    # bounds of what is nearer to the first.
    level = out.max(axis=2).astype(float)
    left, top, right, bottom = moved[0].astype(int)
    others = level.copy()
    others[max(0, top - 4) : bottom + 4, max(0, left - 4) : right + 4] = 0
    threshold = (level[(top + bottom) // 2, (left + right) // 2] + max(others.max(), 1)) / 2
    rows, columns = np.nonzero(level >= threshold)
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(moved[0] - seen).max() <= 2.0
    assert labels.tolist() == [3]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("mode", ["fit", "stretch"])
@common
@given(
    size=st.tuples(st.integers(8, 200), st.integers(8, 200)),
    corners=st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=6),
    seed=st.integers(0, 2**31),
)
def test_output_is_valid(preset, mode, size, corners, seed):
    width, height = size
    table = np.array(corners, np.float32).reshape(-1, 4)
    low, high = np.minimum(table[:, :2], table[:, 2:]), np.maximum(table[:, :2], table[:, 2:])
    boxes = np.concatenate([low, high], 1) * np.float32([width, height] * 2)
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    labels = np.arange(1, len(boxes) + 1)
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    before = (image.copy(), boxes.copy())
    transform = transform_of(preset, (96, 64), mode)
    out, moved, kept, geometry = transform(image, boxes, labels, seed)
    assert out.dtype == np.uint8 and out.ndim == 3 and out.flags.c_contiguous
    h, w = out.shape[:2]
    assert (w, h) == (96, 64) if mode == "stretch" else (1 <= w <= 96 and 1 <= h <= 64)
    assert geometry.original == (width, height) and geometry.resized == (w, h)
    assert moved.dtype == np.float32 and kept.dtype == np.int64 and len(moved) == len(kept)
    assert (moved >= 0).all() and (moved[:, [0, 2]] <= w).all() and (moved[:, [1, 3]] <= h).all()
    assert (moved[:, 2:] >= moved[:, :2]).all()
    if preset in ("ssd", "lsj", "strong"):
        assert (moved[:, 2:] > moved[:, :2]).all()
    else:
        assert kept.tolist() == labels.tolist()
    assert set(kept) <= set(labels) and len(set(kept)) == len(kept)
    again = transform(image, boxes, labels, seed)
    assert all((a == b).all() for a, b in zip((out, moved, kept), again))
    assert (image == before[0]).all() and (boxes == before[1]).all()


def scene_of_four():
    """Four rectangles of different colours, labels 1 to 4 by colour."""
    image = np.full((200, 240, 3), GROUND, np.uint8)
    boxes = np.float32(
        [[20, 20, 80, 80], [140, 20, 220, 70], [30, 110, 90, 190], [130, 100, 220, 180]]
    )
    colours = [(255, 40, 40), (40, 255, 40), (60, 60, 255), (255, 255, 255)]
    for (left, top, right, bottom), colour in zip(boxes.astype(int), colours):
        image[top:bottom, left:right] = colour
    return image, boxes, np.arange(1, 5)


def colour_label(pixel) -> int:
    red, green, blue = (int(value) for value in pixel)
    if max(red, green, blue) - min(red, green, blue) < 60:
        return 4
    return [red, green, blue].index(max(red, green, blue)) + 1


def test_strong_keeps_boxes_on_their_objects():
    """Centre pixels have the label's colour (grey, noise and cut-out spoil a few)."""
    image, boxes, labels = scene_of_four()
    transform = transform_of("strong", (200, 200), "fit")
    right = wrong = 0
    for seed in range(150):
        out, moved, kept, _ = transform(image, boxes, labels, seed)
        for (left, top, r, bottom), label in zip(moved, kept):
            pixel = out[int((top + bottom) / 2), int((left + r) / 2)]
            right, wrong = (
                right + (colour_label(pixel) == label),
                wrong + (colour_label(pixel) != label),
            )
    assert right > 250 and wrong < 0.15 * right


def test_strong_boxes_bound_their_pixels():
    """Rotation makes a box larger than its object, never smaller (blur and holes aside)."""
    image = np.full((200, 240, 3), GROUND, np.uint8)
    image[60:140, 80:180] = OBJECT
    transform = transform_of("strong", (200, 200), "fit")
    outside = total = 0
    for seed in range(150):
        out, moved, _, _ = transform(image, np.float32([[80, 60, 180, 140]]), np.array([1]), seed)
        if len(moved):
            level = out.min(axis=2).astype(int)
            paint = level > level.max() * 0.8
            left, top, right, bottom = moved[0]
            rows, columns = np.nonzero(paint)
            beyond = (columns < left - 3) | (columns >= right + 3)
            beyond |= (rows < top - 3) | (rows >= bottom + 3)
            if level.max() > 160:  # else darkened to the level of the fill
                outside, total = outside + beyond.mean(), total + 1
    assert total > 100 and outside / total < 0.01


@pytest.mark.parametrize("preset", ["flip", "ssd", "strong"])
def test_presets_do_change_things_and_keep_most_boxes(preset):
    image, boxes, labels = scene_of_four()
    transform = transform_of(preset, (160, 160), "stretch")
    results = [transform(image, boxes, labels, seed) for seed in range(60)]
    assert len({result[0].tobytes() for result in results}) >= (2 if preset == "flip" else 50)
    kept = np.mean([len(result[1]) for result in results])
    assert kept == 4 if preset == "flip" else kept > 2
    assert all(len(result[1]) for result in results)


@pytest.mark.parametrize("preset", PRESETS)
def test_validation_is_the_resize_alone(preset):
    image, boxes, labels = scene_of_four()
    transform = box_transform(preset, Size(120, 120), "fit", training=False)
    out, moved, kept, geometry = transform(image, boxes, labels, seed=7)
    assert out.shape == (100, 120, 3) and (moved == boxes / 2).all() and (kept == labels).all()
    assert geometry.scale == (0.5, 0.5)


@pytest.mark.parametrize("preset", PRESETS)
def test_pickled_transforms_do_the_same(preset):
    """As spawned workers get them."""
    image, boxes, labels = scene_of_four()
    transform = transform_of(preset, (96, 96), "fit")
    copy = pickle.loads(pickle.dumps(transform))
    for seed in range(5):
        pairs = zip(transform(image, boxes, labels, seed)[:3], copy(image, boxes, labels, seed)[:3])
        assert all((a == b).all() for a, b in pairs)


def test_colours_change_and_grey_stays_grey():
    """Saturation and hue leave grey alone; brightness and contrast move it as one."""
    grey = np.full((8, 8, 3), 100, np.uint8)
    red = np.full((8, 8, 3), (200, 60, 60), np.uint8)
    levels, reds = set(), set()
    for seed in range(60):
        out = photometric(grey, np.random.default_rng(seed))
        assert np.ptp(out.astype(int)) <= 1
        levels.add(int(out[0, 0, 0]))
        reds.add(tuple(photometric(red, np.random.default_rng(seed))[0, 0].tolist()))
    assert 18 < min(levels) < 60 and 140 < max(levels) < 190
    assert any(abs(g - b) > 15 for _, g, b in reds)  # the hue turned


def test_a_turned_box_is_the_bounds_of_its_pixels():
    image = np.full((200, 240, 3), GROUND, np.uint8)
    image[60:140, 80:180] = OBJECT
    box = np.float32([[80, 60, 180, 140]])
    turned = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        if np.random.default_rng(seed).random() < 0.5:
            out, moved, _ = disturb(image, box, np.array([1]), rng)
            rows, columns = np.nonzero(out.min(axis=2) > 200)
            seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            if np.abs(moved[0] - box[0]).max() > 3 and len(rows) > 7000:
                turned += np.abs(moved[0] - seen).max() <= 2.5
    assert turned > 8
