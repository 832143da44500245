"""How strong augmentation is: the YAML's AUGMENT, in every task's presets."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from src.core.config import validate
from src.core.errors import UserError
from src.core.structures import Size
from src.data.boxes.settings import BoxDataset
from src.data.boxes.transforms import box_transform
from src.data.common.settings import Strengths
from src.data.depths.settings import DepthDataset
from src.data.depths.transforms import DepthTransform
from src.data.labels.transforms import LabelTransform
from src.data.masks.reader import MaskReader
from src.data.masks.settings import MaskDataset
from src.data.masks.transforms import MaskTransform

SIZE = Size(32, 24)
RAMP = np.dstack([np.add.outer(np.arange(24) * 5, np.arange(32) * 3).astype(np.uint8)] * 3)


def upside_down(strengths=None):
    return strengths or Strengths(flip=0, flip_updown=1)


def test_boxes_follow_both_mirrors():
    boxes, labels = np.array([[2, 3, 10, 9]], np.float32), np.array([1])
    turned = box_transform("flip", SIZE, strengths=upside_down())
    image, moved, _, _ = turned(RAMP, boxes, labels, 0)
    assert (image == RAMP[::-1]).all() and moved.tolist() == [[2, 15, 10, 21]]
    both = box_transform("flip", SIZE, strengths=Strengths(flip=1, flip_updown=1))
    image, moved, _, _ = both(RAMP, boxes, labels, 0)
    assert (image == RAMP[::-1, ::-1]).all() and moved.tolist() == [[22, 15, 30, 21]]


@pytest.mark.parametrize("preset", ["ssd", "lsj", "strong"])
def test_presets_of_boxes_take_their_strengths(preset):
    boxes, labels = np.array([[2, 3, 10, 9]], np.float32), np.array([1])
    grey = np.full((24, 32, 3), 90, np.uint8)

    def colours(strengths):
        transform = box_transform(preset, SIZE, strengths=strengths)
        return [transform(grey, boxes, labels, seed)[0] for seed in range(8)]

    assert any((image == 255).any() or image.std() > 0 for image in colours(Strengths()))
    if preset != "strong":  # it also has noise and holes
        kept = colours(Strengths(colour=0))
        assert all(image.min() >= 90 and image.max() <= 124 for image in kept)  # grey, and FILL


def test_the_size_of_lsj_is_settable():
    transform = box_transform("lsj", SIZE, strengths=Strengths(scale=(1, 1), flip=0, colour=0))
    image, *_ = transform(RAMP, np.zeros((0, 4), np.float32), np.zeros(0), 3)
    assert np.abs(image.astype(int) - RAMP).max() <= 1


def test_masks_labels_and_depths_take_them():
    dataset = MaskDataset(
        ALL_CLASSES=["a", "b"], MASK_FORMAT="index", AUGMENT={"flip": 0, "flip_updown": 1}
    )
    mask = (RAMP[..., 0] > 60).astype(np.uint8)
    transform = MaskTransform(MaskReader(dataset), SIZE, "fit", "flip")
    image, moved, _ = transform(RAMP, mask)
    assert (image == RAMP[::-1]).all() and (moved == mask[::-1]).all()
    labels = LabelTransform(SIZE, "stretch", "flip", strengths=upside_down())
    assert (labels(RAMP, 0)[0] == RAMP[::-1]).all()
    depths = DepthTransform(DepthDataset(AUGMENT=upside_down()), SIZE, "fit", "flip")
    image, depth = depths.augment(RAMP, RAMP[..., 0].astype(np.float32), np.random.default_rng(0))
    assert (image == RAMP[::-1]).all() and (depth == RAMP[::-1, :, 0]).all()


def test_what_has_no_effect_is_said_and_keys_tell_strengths_apart(caplog):
    with caplog.at_level(logging.WARNING):
        named = box_transform("flip", SIZE, strengths=Strengths(flip=0.1, colour=0.5))
    assert "AUGMENT: colour has no effect with --augment flip" in caplog.text
    plain = box_transform("flip", SIZE)
    assert named.cache_key() != plain.cache_key()
    assert plain.cache_key() == box_transform("flip", SIZE, strengths=Strengths()).cache_key()


def test_a_preset_as_AUGMENT_is_answered_with_where_it_goes():  # noqa: N802
    paths = dict.fromkeys(("TRAIN_IMG", "TRAIN_ANNOT", "VALID_IMG", "VALID_ANNOT"), "x")
    with pytest.raises(UserError, match=r"a preset is TRAIN: \{augment: ssd\}"):
        validate(BoxDataset, {**paths, "CLASSES": ["a"], "AUGMENT": "ssd"}, "my.yaml")
    with pytest.raises(UserError, match="smaller first"):
        validate(BoxDataset, {**paths, "CLASSES": ["a"], "AUGMENT": {"scale": [2, 1]}}, "my.yaml")
