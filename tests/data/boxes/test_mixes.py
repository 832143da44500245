"""Boxes follow their pixels when several images are joined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from src.core.structures import Size
from src.data.boxes.mixes import mixup, mosaic, mosaic_phases
from src.data.boxes.records import BoxRecord
from src.data.common.loaders import train_loader

COLOURS = np.uint8([[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0]])
SIZE = Size(160, 128)


def scene(number: int, rng: np.random.Generator) -> tuple:
    """A black picture with one rectangle in the colour of its label, 1 to 4."""
    width, height = rng.integers(60, 300, 2)
    left, top = int(rng.integers(0, width - 30)), int(rng.integers(0, height - 30))
    right, bottom = int(rng.integers(left + 24, width + 1)), int(rng.integers(top + 24, height + 1))
    image = np.zeros((height, width, 3), np.uint8)
    image[top:bottom, left:right] = COLOURS[number]
    return image, np.float32([[left, top, right, bottom]]), np.int64([number + 1])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31))
def test_boxes_of_a_mosaic_are_the_bounds_of_their_pixels(seed):
    rng = np.random.default_rng(seed)
    image, boxes, labels = mosaic([scene(n, rng) for n in range(4)], SIZE, rng)
    assert image.shape == (128, 160, 3) and image.dtype == np.uint8
    assert boxes.dtype == np.float32 and labels.dtype == np.int64
    assert len(set(labels.tolist())) == len(labels)
    for box, label in zip(boxes, labels):
        colour = COLOURS[label - 1].astype(int)
        rows, columns = np.nonzero(np.abs(image.astype(int) - colour).max(axis=2) < 110)
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.abs(box - seen).max() <= 2.5


def test_a_mosaic_keeps_many_of_its_boxes():
    rng = np.random.default_rng(0)
    kept = [len(mosaic([scene(n, rng) for n in range(4)], SIZE, rng)[1]) for _ in range(100)]
    assert 150 < sum(kept) < 400 and max(kept) == 4


def test_mixup_is_the_mean_with_both_boxes():
    rng = np.random.default_rng(1)
    first, second = scene(0, rng), scene(1, rng)
    image, boxes, labels = mixup(first, second)
    assert labels.tolist() == [1, 2]
    np.testing.assert_array_equal(boxes, np.concatenate([first[1], second[1]]))
    x, y = boxes[0, :2].astype(int)
    assert image[y, x, 0] >= 125 and image.shape[0] == max(len(first[0]), len(second[0]))


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> list[BoxRecord]:
    folder, rng, found = tmp_path_factory.mktemp("scenes"), np.random.default_rng(2), []
    for number in range(8):
        image, boxes, labels = scene(number % 4, rng)
        Image.fromarray(image).save(folder / f"{number}.png")
        none = np.zeros(1, bool)
        path = folder / f"{number}.png"
        found.append(BoxRecord(path, None, str(number), boxes, labels, none, none, None))
    return found


def batches(records: list[BoxRecord], workers: int, epoch: int) -> list:
    phases = mosaic_phases(records, SIZE, "fit", epochs=10)
    loader = train_loader(records, phases, batch=4, workers=workers, seed=0)
    loader.set_epoch(epoch)
    return list(loader)


def test_the_same_mosaics_come_from_workers_and_none_in_the_last_epochs(records):
    here, there = batches(records, 0, 3), batches(records, 2, 3)
    for one, other in zip(here, there, strict=True):
        assert (one.images == other.images).all()
        for mine, theirs in zip(one.targets, other.targets):
            assert (mine["boxes"] == theirs["boxes"]).all()
    several = [len(target["boxes"]) for batch in here for target in batch.targets]
    assert max(several) > 1
    last = [len(target["boxes"]) for batch in batches(records, 0, 8) for target in batch.targets]
    assert last == [1] * len(records)
