"""A transform's cache_key() changes with whatever changes what comes out of it."""

from __future__ import annotations

import numpy as np
import pytest

from src.core.structures import Size
from src.data.boxes.transforms import BoxTransform
from src.data.depths import transforms as depths
from src.data.depths.settings import DepthDataset
from src.data.labels import transforms as labels
from src.data.masks import transforms as masks
from src.data.masks.reader import MaskReader
from src.data.masks.settings import MaskDataset

SIZE = Size(64, 48)
MASKS = MaskReader(MaskDataset(ALL_CLASSES=["ground", "thing"]))


def scene() -> np.ndarray:
    """160x100, smooth, of many colours."""
    y, x = np.mgrid[:100, :160]
    waves = [np.sin(x / 9) + np.cos(y / 7), np.sin((x + y) / 12), np.cos((x - 2 * y) / 15)]
    return np.stack([(60 * wave + 120).clip(0, 255) for wave in waves], -1).astype(np.uint8)


def boxes(preset, seed):
    transform = BoxTransform(preset, SIZE, "fit", True)
    image, found, _, _ = transform(scene(), np.float32([[20, 20, 90, 80]]), np.array([1]), seed)
    return transform, image, found


def label(preset, seed):
    transform = labels.LabelTransform(SIZE, "fit", preset)
    return transform, transform(scene(), seed)[0], np.zeros(1)


def mask(preset, seed):
    transform = masks.MaskTransform(MASKS, SIZE, "fit", preset)
    image, found, _ = transform(scene(), (scene()[..., 0] > 120).astype(np.uint8), seed)
    return transform, image, found


def depth(preset, seed):
    transform = depths.DepthTransform(DepthDataset(), SIZE, "fit", preset)
    image, found = transform.augment(
        scene(), scene()[..., 0].astype(np.float32), np.random.default_rng(seed)
    )
    return transform, image, found


# What came out (mean and std of the images and means of the truths of 12 seeds) of these versions.
# Another figure is another VERSION: raise it, or kept features of the old pixels would be read as
# the new ones; then write the new figures here.
KNOWN = {
    (boxes, "ssd"): ([2, 2], [117.73, 50.14, 23.61]),
    (boxes, "strong"): ([2, 2], [118.13, 51.37, 24.28]),
    (label, "crop"): ([1, 2], [119.84, 48.7, 0.0]),
    (label, "strong"): ([1, 2], [119.77, 49.17, 0.0]),
    (mask, "jitter"): ([1, 2], [118.69, 43.2, 59.4]),
    (mask, "strong"): ([1, 2], [109.95, 45.93, 59.4]),
    (depth, "strong"): ([2, 2], [116.66, 45.99, 103.83]),
}


@pytest.mark.parametrize(("run", "preset"), KNOWN, ids=lambda v: getattr(v, "__name__", v))
def test_the_version_is_that_of_the_pixels(run, preset):
    done = [run(preset, seed) for seed in range(12)]
    images = np.concatenate([image.reshape(-1) for _, image, _ in done]).astype(float)
    truths = np.concatenate([truth.reshape(-1) for *_, truth in done]).astype(float)
    figures = [float(images.mean()), float(images.std()), float(truths.mean())]
    version, wanted = KNOWN[run, preset]
    assert done[0][0].cache_key()["version"] == version
    # A version of cv2 may round otherwise; a changed constant moves a figure by more.
    assert figures == pytest.approx(wanted, abs=0.4), [round(figure, 2) for figure in figures]


@pytest.mark.parametrize(
    ("module", "name", "value", "make"),
    [
        (labels, "SCALE", (0.2, 1.0), lambda: labels.LabelTransform(SIZE, "fit")),
        (labels, "VERSION", 99, lambda: labels.LabelTransform(SIZE, "fit")),
        (masks, "JITTER", (0.4, 2.0), lambda: masks.MaskTransform(MASKS, SIZE, "fit")),
        (depths, "_TURN", 5.0, lambda: depths.DepthTransform(DepthDataset(), SIZE, "fit")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_changed_constant_is_another_key(monkeypatch, module, name, value, make):
    before = make().cache_key()
    assert before == make().cache_key()
    monkeypatch.setattr(module, name, value)
    assert make().cache_key() != before


def test_a_changed_option_is_another_key():
    keys = [
        depths.DepthTransform(DepthDataset(TRAIN_CROP=crop), SIZE, mode, preset).cache_key()
        for crop in (None, (0, 0, 50, 50))
        for mode in ("fit", "stretch")
        for preset in ("none", "strong")
    ]
    assert len({str(key) for key in keys}) == 8
