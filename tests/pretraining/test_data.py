"""Images, order, crops and their batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from src.core.errors import UserError
from src.data.common.images import write_image
from src.pretraining.crops import CropSizes, CropTransform
from src.pretraining.data import EndlessBatches, crop_loader, find_images, say_small
from tests.data.shards import write_shards

SIZES = CropSizes(global_size=32, local_size=16, locals=3)


def test_images_of_folders_globs_and_lists(textures, tmp_path):
    everything = find_images(str(textures))
    assert len(everything) == 24
    assert len(find_images(str(textures / "*" / "1.png"))) == 3
    listed = tmp_path / "list.txt"
    listed.write_text(f"{everything[3]}\n\n{everything[1]}\n")
    assert find_images(str(listed)) == [everything[3], everything[1]]
    listed.write_text("nowhere.png\n")
    with pytest.raises(UserError, match="1 are not there, e.g. .*nowhere.png"):
        find_images(str(listed))


def test_shards_give_the_crops_of_their_files(textures, tmp_path):
    shards = find_images(write_shards(textures, tmp_path / "shards"))
    files = [textures / path.parent.name / path.name for path in shards]
    assert len(set(shards)) == 24
    batches = []
    for paths, workers in ((files, 0), (shards, 2)):
        loader = crop_loader(
            paths, CropTransform(SIZES), batch=6, steps=4, workers=workers, seed=1, grid=None
        )
        loader.set_epoch(2)
        batches.append(list(loader))
    for wanted, found in zip(*batches):
        assert torch.equal(wanted.global_crops, found.global_crops)
    with pytest.raises(UserError, match="no such shard"):
        find_images("nowhere/{000..009}.tar")


def test_an_image_smaller_than_a_crop_is_told(textures, caplog):
    say_small(find_images(str(textures)), 224)
    assert "24 of 24 images" in caplog.text and "enlarged" in caplog.text


def test_endless_batches_are_full_and_hold_no_image_twice():
    batches = EndlessBatches(10, 4, 20, seed=3)
    drawn = list(batches)
    assert len(drawn) == len(batches) == 20
    for keys in drawn:
        assert len({index for _, index in keys}) == 4
    seen = [index for keys in drawn for _, index in keys]
    assert set(seen) == set(range(10)), "over the rounds every image comes"
    batches.epoch = 1
    assert list(batches)[0] != drawn[0]
    again = EndlessBatches(10, 4, 20, seed=3)
    again.epoch = 1
    assert list(again) == list(batches)


def test_ranks_share_the_global_batch():
    whole = list(EndlessBatches(12, 4, 3, seed=1))
    halves = [list(EndlessBatches(12, 4, 3, seed=1, rank=r, world=2)) for r in range(2)]
    for step, keys in enumerate(whole):
        assert sorted(halves[0][step] + halves[1][step]) == sorted(keys)


def test_crops_have_their_sizes_and_come_again(textures):
    path = find_images(str(textures))[0]
    transform = CropTransform(SIZES)
    _, views, _ = transform.load(path, 5)
    assert views["global"].shape == (2, 32, 32, 3) and views["local"].shape == (3, 16, 16, 3)
    _, again, _ = CropTransform(SIZES).load(path, 5)
    assert all((views[name] == again[name]).all() for name in views)
    _, other, _ = transform.load(path, 6)
    assert (views["global"] != other["global"]).any()
    assert (views["global"][0] != views["global"][1]).any()


def test_gram_crops_are_the_global_ones_at_their_size(textures):
    sizes = CropSizes(global_size=16, local_size=16, locals=1, gram_size=32)
    _, views, _ = CropTransform(sizes).load(find_images(str(textures))[0], 0)
    assert views["gram"].shape == (2, 32, 32, 3)
    small = views["gram"].reshape(2, 16, 2, 16, 2, 3).mean((2, 4))
    assert np.abs(small - views["global"].astype(float)).mean() < 2


def test_blur_is_as_dinov3_effectively_applies_it(tmp_path):
    """The first global crop is never blurred, the second mostly."""
    board = np.indices((64, 64)).sum(0) % 2 * 255
    path = tmp_path / "board.png"
    write_image(path, np.repeat(board[..., None], 3, 2).astype(np.uint8))
    transform = CropTransform(CropSizes(2, 64, 16, 1, (1.0, 1.0), (1.0, 1.0)))
    sharp = {0: 0, 1: 0}
    for seed in range(40):
        for view, crop in enumerate(transform.load(path, seed)[1]["global"]):
            spread = np.ptp(crop.astype(int), axis=(0, 1)).max()
            sharp[view] += bool(spread > 60 and crop.astype(float).std() > 60)
    assert sharp[0] > 30 and sharp[1] < 25, sharp


def test_batches_are_the_same_whatever_the_workers(textures):
    paths = find_images(str(textures))
    common = {"batch": 4, "steps": 2, "seed": 7, "grid": (2, 2)}
    one, two = (list(crop_loader(paths, CropTransform(SIZES), workers=w, **common)) for w in (0, 1))
    for a, b in zip(one, two):
        assert a.global_crops.shape == (2, 4, 3, 32, 32) and a.local_crops.shape[0] == 3
        assert a.masks.shape == (8, 4) and a.masks.sum() > 0
        for name in ("global_crops", "local_crops", "masks"):
            assert torch.equal(getattr(a, name), getattr(b, name))


def test_fewer_images_than_a_batch_is_told(textures):
    paths = find_images(str(textures))[:3]
    with pytest.raises(UserError, match="3 images and --batch 4"):
        crop_loader(paths, CropTransform(SIZES), batch=4, steps=1, workers=0, seed=0, grid=None)
