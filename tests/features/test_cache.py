"""Kept features: what misses, what survives, and that training does not see the difference."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch

from src.classification.settings import TrainClassifier
from src.classification.train import train
from src.core.errors import UserError
from src.data.labels.settings import LabelDataset
from src.features.cache import ArraySpec, FeatureCache
from src.features.digests import Contents, row_keys
from tests.classification.drawn import draw_folders

ENTRIES = {"map": ArraySpec((2, 4, 3), "float32"), "mask": ArraySpec((5,), "uint8")}


def open_cache(root: Path, keys: list[bytes], entries=ENTRIES, **settings) -> FeatureCache:
    return FeatureCache(root, {"backbone": "toy", **settings}, entries, keys)


def keys_of(count: int, first: int = 0) -> list[bytes]:
    return row_keys([bytes([i]) * 16 for i in range(first, first + count)], ["plain"])


def row(seed: int, height: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "map": rng.normal(size=(2, height, 3)).astype(np.float32),
        "mask": rng.integers(0, 255, 5, dtype=np.uint8),
    }


def same(found, expected) -> bool:
    return found is not None and all((found[name] == expected[name]).all() for name in expected)


def test_rows_come_back_after_a_restart(tmp_path):
    cache = open_cache(tmp_path, keys_of(5))
    for i in (0, 3):
        cache.write(i, row(i, height=4 - i))  # smaller maps have their own shape
    again = open_cache(tmp_path, keys_of(5))
    assert [again.has(i) for i in range(5)] == [True, False, False, True, False]
    assert same(again.read(0), row(0)) and same(again.read(3), row(3, 1))
    assert again.read(1) is None and again.count == 2


def test_new_pictures_are_added_and_old_ones_found_elsewhere(tmp_path):
    first = open_cache(tmp_path, keys_of(3))
    for i in range(3):
        first.write(i, row(i))
    grown = open_cache(tmp_path, keys_of(2, first=8) + keys_of(3)[::-1])
    assert [grown.has(i) for i in range(5)] == [False, False, True, True, True]
    assert same(grown.read(2), row(2))
    grown.write(0, row(70))
    first.refresh()
    assert same(first.read(1), row(1)) and same(grown.read(0), row(70))


def test_other_settings_or_types_are_another_folder(tmp_path):
    cache = open_cache(tmp_path, keys_of(1), weights="a")
    cache.write(0, row(0))
    assert not open_cache(tmp_path, keys_of(1), weights="b").has(0)
    half = {**ENTRIES, "map": ArraySpec((2, 4, 3), "float16")}
    other = open_cache(tmp_path, keys_of(1), half, weights="a")
    assert not other.has(0)
    other.write(0, row(0))
    np.testing.assert_allclose(other.read(0)["map"], row(0)["map"], atol=2e-3)


def test_a_damaged_row_is_told_and_made_again(tmp_path, caplog):
    cache = open_cache(tmp_path, keys_of(3))
    for i in range(3):
        cache.write(i, row(i))
    path = cache.folder / "rows.bin"
    content = bytearray(path.read_bytes())
    content[cache.row_bytes + 9] ^= 1  # a bit of the second row
    path.write_bytes(content)
    again = open_cache(tmp_path, keys_of(3))
    with caplog.at_level(logging.WARNING):
        assert again.read(1) is None
    assert "damaged" in caplog.text and not again.has(1)
    assert same(again.read(0), row(0)) and same(again.read(2), row(2))
    again.write(1, row(1))
    assert same(open_cache(tmp_path, keys_of(3)).read(1), row(1))


@pytest.mark.parametrize("name", ["rows.bin", "table.bin", "about.json"])
def test_a_file_cut_short_is_told_and_built_anew(tmp_path, caplog, name):
    cache = open_cache(tmp_path, keys_of(2))
    for i in range(2):
        cache.write(i, row(i))
    path = cache.folder / name
    path.write_bytes(path.read_bytes()[:-7])
    with caplog.at_level(logging.WARNING):
        again = open_cache(tmp_path, keys_of(2))
    assert "built anew" in caplog.text and again.count == 0
    again.write(0, row(0))
    assert same(again.read(0), row(0))


OPENED: deque[str] = deque(maxlen=10_000)  # by every open of this process
sys.addaudithook(lambda event, args: OPENED.append(str(args[0])) if event == "open" else None)


def digests_of(records, content, memo: Path) -> list[bytes]:
    return Contents(records, content, memo).digests


def test_digests_are_of_the_content(tmp_path):
    memo = tmp_path / "files.bin"
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path, text in zip(paths, ("one", "two", "one")):
        path.write_text(text)
    a, b, c = digests_of(paths, lambda path: [path], memo)
    assert a == c != b
    assert digests_of(paths[:1], lambda path: [path, "label 2"], memo)[0] != a
    assert len(set(row_keys([a, b, c], ["plain", "view 1"]))) == 6  # twins have their own rows
    with pytest.raises(UserError, match="cannot read"):
        digests_of([tmp_path / "gone"], lambda path: [path], memo)


def test_files_are_read_once_and_again_when_they_change(tmp_path):
    """Neither the next run nor the next process reads bytes that are known; a change of the same
    size and time is seen."""
    memo, paths = tmp_path / "files.bin", [tmp_path / f"{i}.png" for i in range(30)]
    for i, path in enumerate(paths):
        path.write_text(f"{i:03}")
    contents: list[Contents] = []

    def opened() -> int:
        OPENED.clear()
        contents.append(Contents(paths, lambda path: [path], memo))
        return sum(name.endswith(".png") for name in OPENED)

    assert opened() == 30
    assert opened() == 0
    times = paths[7].stat()
    time.sleep(0.02)
    paths[7].write_text("xyz")
    os.utime(paths[7], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not contents[-1].unchanged(7) and contents[-1].unchanged(8)
    memo.write_bytes(memo.read_bytes()[:-5])  # a kill within the last entry
    assert opened() == 2 and opened() == 0  # the changed one, and the last of the memo
    first, *_, last = (one.digests for one in contents)
    assert [i for i in range(30) if first[i] != last[i]] == [7]


# --- the whole command -------------------------------------------------------------------------


def run(root: Path, name: str, **changes):
    """A training run in ``root``; the history, and the head's weights."""
    values = {
        "model_name": "dinov3_convnext_atto",
        "weights": "none",
        "imgsz": [32],
        "epochs": 2,
        "batch": 8,
        "workers": 0,
        "device": "cpu",
        "augment": "none",
        "train_dir": root / "train",
        "valid_dir": root / "valid",
        "cache_dir": root / "kept",
        "out_dir": root / name,
        "dataset": LabelDataset(),
    }
    history = train(TrainClassifier(**{**values, **changes}))
    state = torch.load(root / name / "last_model.pth", weights_only=True)["model"]
    return history, {n: v for n, v in state.items() if n.startswith("head.")}


def stored(root: Path) -> list[Path]:
    return sorted((root / "kept").glob("*/rows.bin"))


def test_training_does_not_see_the_cache(tmp_path, caplog):
    """One view, cache and no cache: the same losses, scores and weights but for rounding; and
    what changes the features misses the cache."""
    draw_folders(tmp_path, train=3, valid=1)
    with caplog.at_level(logging.INFO):
        plain, weights = run(tmp_path, "plain")
        kept, kept_weights = run(tmp_path, "kept_run", cache_features=True)
        assert "12 rows" in caplog.text and "0 there already" in caplog.text
    for ours, theirs in zip(kept.rows, plain.rows):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
        assert ours["top1"] == theirs["top1"]
        assert ours["ECE"] == pytest.approx(theirs["ECE"], abs=1e-4)
    for name, value in weights.items():
        torch.testing.assert_close(kept_weights[name], value, atol=1e-5, rtol=1e-4)

    caplog.clear()
    changed = tmp_path / "train" / "red" / "0.png"
    changed.write_bytes((tmp_path / "train" / "blue" / "0.png").read_bytes())
    with caplog.at_level(logging.INFO):
        run(tmp_path, "changed", cache_features=True, epochs=1)
    assert "12 rows" in caplog.text and "11 there already" in caplog.text
    assert len(stored(tmp_path)) == 1
    run(tmp_path, "seed", cache_features=True, epochs=1, seed=7)  # other random weights
    assert len(stored(tmp_path)) == 2
    run(tmp_path, "size", cache_features=True, epochs=1, imgsz=[64])
    assert len(stored(tmp_path)) == 3


def test_several_views_are_different_and_kept(tmp_path, caplog):
    draw_folders(tmp_path, train=2, valid=1)
    options = {"cache_features": True, "cache_views": 3, "augment": "crop", "epochs": 4}
    history, _ = run(tmp_path, "views", **options)
    with caplog.at_level(logging.INFO):
        again, _ = run(tmp_path, "again", **options, cache_dtype="float32")
    assert "24 rows" in caplog.text and "24 there already" in caplog.text
    assert [row["loss"] for row in again.rows] == [row["loss"] for row in history.rows]


def test_a_trained_backbone_cannot_be_kept(tmp_path):
    draw_folders(tmp_path, train=1, valid=1)
    with pytest.raises(UserError, match="frozen"):
        run(tmp_path, "fine", cache_features=True, fine_tune=True)
    with pytest.raises(UserError, match="mixup"):
        run(tmp_path, "mixed", cache_features=True, mixup=0.2)


def test_rows_are_read_ahead_in_one_piece_and_damaged_ones_made_again(tmp_path, caplog):
    """The batches of a loader of kept features: one tensor to move, the same after damage."""
    from src.backbones.batching import ImageFeatures
    from src.core.structures import Size
    from src.data.common.loaders import valid_loader
    from src.data.labels.reader import read_labels
    from src.data.labels.transforms import LabelTransform, label_target
    from src.features.cached import CachedLoader, Caching

    draw_folders(tmp_path, train=3, valid=1)
    flags = {"train": tmp_path / "train", "valid": tmp_path / "valid"}
    records = read_labels(LabelDataset(), flags=flags).records["train"]
    plain = LabelTransform(Size(32, 32), "stretch", training=False)
    seen = []

    def extract(batch):
        seen.extend(batch.indices)
        return [
            ImageFeatures({"map": image.float()}, size)
            for image, size in zip(batch.image_list(), batch.sizes)
        ]

    def loader() -> CachedLoader:
        caching = Caching(
            extract, {}, Size(32, 32), tmp_path / "kept", plain,
            lambda record: label_target(record, None), store="float16",
        )  # fmt: skip
        return CachedLoader(valid_loader(records, plain, batch=5, workers=0), caching)

    first = list(loader())
    assert sorted(seen)[1:] == list(range(12))  # and the probe
    path = next((tmp_path / "kept").glob("*/rows.bin"))
    content = bytearray(path.read_bytes())
    content[4 * (len(content) // 12) + 99] ^= 64
    path.write_bytes(content)
    seen.clear()
    again = list(loader())
    assert seen == [0, 4] and "damaged" in caplog.text  # the probe, and the damaged row
    for one, other in zip(first, again, strict=True):
        assert one.indices == other.indices and torch.equal(one.rows, other.rows)
        moved = other.to("meta")
        where = {image.values["map"].untyped_storage().data_ptr() for image in other.images}
        assert where == {other.rows.untyped_storage().data_ptr()}
        assert moved.image_list()[0].values["map"].dtype == torch.float32
        assert [int(t["label"]) for t in other.targets] == [
            records[index].labels[0] for index in other.indices
        ]
