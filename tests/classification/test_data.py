"""Folders, CSV files and transforms of classification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from src.core.config import load_yaml, validate
from src.core.errors import UserError
from src.core.structures import Size
from src.data.common.loaders import GlobalBatches
from src.data.labels.reader import LabelData, LabelRecord, check_labels, read_csv, read_labels
from src.data.labels.settings import LabelDataset
from src.data.labels.transforms import LabelTransform, label_target, random_part
from tests.classification.drawn import draw_folders
from tests.counting import calls

CONFIGS = Path(__file__).resolve().parents[2] / "classification_configs"


def test_folders_give_sorted_classes(tmp_path):
    draw_folders(tmp_path)
    data = read_labels(LabelDataset(TRAIN_DIR="train", VALID_DIR="valid"), tmp_path)
    assert (
        data.names == ["blue", "green", "red", "yellow"]
        and not data.multi_label
        and not data.faults
    )
    assert len(data.records["train"]) == 24
    assert all(data.names[r.labels[0]] == r.image.parent.name for r in data.records["valid"])
    assert not check_labels(data)


def test_class_names_give_the_order_and_unknown_folders_are_told(tmp_path):
    draw_folders(tmp_path)
    dataset = LabelDataset(
        TRAIN_DIR="train", VALID_DIR="valid", CLASS_NAMES=["red", "blue", "gren", "yellow"]
    )
    data = read_labels(dataset, tmp_path)
    assert {r.labels[0] for r in data.records["train"] if r.image.parent.name == "red"} == {0}
    assert "did you mean 'gren'" in data.faults[0].detail
    assert any(f.kind == "class without images" for f in check_labels(data))


def test_csv_with_several_labels(tmp_path):
    draw_folders(tmp_path, train=3, valid=1)
    rows = [
        "path,label,label",
        "train/red/0.png,red,round",
        "train/red/1.png,red|big",
        "train/red/2.png",
    ]
    (tmp_path / "train.csv").write_text("\n".join(rows))
    (tmp_path / "valid.csv").write_text("valid/red/3.png,red\nvalid/red/9.png,red")
    data = read_labels(LabelDataset(TRAIN_CSV="train.csv", VALID_CSV="valid.csv"), tmp_path)
    assert data.multi_label and data.names == ["big", "red", "round"]
    assert [r.labels for r in data.records["train"]] == [(1, 2), (1, 0), ()]
    assert [f.kind for f in data.faults] == ["missing image"]
    target = label_target(data.records["train"][0], 3)["labels"]
    assert target.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("path,label,split", "column 'split'"),
        ("file,label", "column 'file'"),
        ("path,path", "names path, path"),
        ("path,label", r"row 2 has 3 cells and the header names 2"),
    ],
)
def test_a_csv_header_is_read_or_refused(tmp_path, header, told):
    draw_folders(tmp_path, train=1, valid=1)
    (tmp_path / "a.csv").write_text(f"{header}\ntrain/red/0.png,red,train\n")
    with pytest.raises(UserError, match=told):
        read_csv(tmp_path / "a.csv")


def test_columns_of_a_csv_are_found_by_name(tmp_path):
    draw_folders(tmp_path, train=2, valid=1)
    (tmp_path / "a.csv").write_text("Label,Path\nred,train/red/0.png\nblue,train/blue/0.png\n")
    rows, names, faults = read_csv(tmp_path / "a.csv")
    assert names == ["blue", "red"] and not faults
    assert rows[0] == (tmp_path / "train/red/0.png", ("red",))


def test_sources_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="--train-dir"):
        read_labels(LabelDataset())
    with pytest.raises(UserError, match="no such folder"):
        read_labels(LabelDataset(), flags={"train": tmp_path / "no", "valid": None})
    (tmp_path / "flat").mkdir()
    with pytest.raises(UserError, match="sub-folder"):
        read_labels(LabelDataset(), flags={"train": tmp_path / "flat", "valid": None})


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_the_configs_are_valid(path):
    content = {key: value for key, value in load_yaml(path).items() if key != "TRAIN"}
    dataset = validate(LabelDataset, content, str(path))
    assert dataset.TRAIN_DIR or dataset.TRAIN_CSV
    assert dataset.VALID_DIR or dataset.VALID_CSV


def test_ants_and_bees(shared):
    dataset = validate(LabelDataset, load_yaml(CONFIGS / "ants_bees.yaml"), "")
    data = read_labels(dataset, shared / "data" / "ants_bees")
    assert [len(data.records[split]) for split in ("train", "valid")] == [193, 50]
    assert not [fault for fault in check_labels(data) if fault.severity == "error"]


@pytest.mark.parametrize("preset", ["flip", "crop", "strong"])
def test_augmentation_is_a_function_of_the_seed(preset):
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    transform = LabelTransform(Size(48, 32), "stretch", preset)
    first, geometry = transform(image, 5)
    assert first.shape == (32, 48, 3) and geometry.original == Size(80, 60)
    assert (transform(image, 5)[0] == first).all()
    assert any((transform(image, seed)[0] != first).any() for seed in range(6, 12))
    still = LabelTransform(Size(48, 32), "stretch", preset, training=False)
    assert (still(image, 1)[0] == still(image, 2)[0]).all()


@pytest.mark.parametrize("preset", ["crop", "strong"])
def test_crops_average_what_they_shrink(preset):
    """White noise 2048 -> 224: a crop that skips pixels keeps the noise (std 49), and its model
    never sees what validation shows it (7.8)."""
    noise = np.random.default_rng(0).integers(0, 256, (2048, 2048, 3), dtype=np.uint8)
    size = Size(224, 224)
    still, _ = LabelTransform(size, "fit", training=False)(noise)
    moved = [LabelTransform(size, "fit", preset)(noise, seed)[0] for seed in range(4)]
    assert still.std() < 9
    assert max(image[..., 0].std() for image in moved) < 20  # 14 of the smallest crop


@pytest.mark.parametrize("shape", [(60, 80), (3, 400), (400, 3), (1, 1)])
def test_random_parts_lie_inside_and_differ(shape):
    height, width = shape
    drawn = set()
    for seed in range(200):
        rows, columns = random_part(Size(width, height), np.random.default_rng(seed))
        assert 0 <= rows.start < rows.stop <= height and 0 <= columns.start < columns.stop <= width
        drawn.add((rows.start, rows.stop, columns.start, columns.stop))
    if shape == (60, 80):
        shares = [(b - a) * (d - c) / 4800 for a, b, c, d in drawn]
        aspects = [(d - c) / (b - a) for a, b, c, d in drawn]
        assert 0.33 < min(shares) < 0.45 and 0.9 < max(shares) <= 1
        assert 0.7 < min(aspects) < 0.85 and 1.2 < max(aspects) < 1.4


def test_balanced_drawing():
    from src.classification.train import balanced_chances
    from src.data.labels.reader import LabelData

    records = [LabelRecord(Path(f"{i}"), (int(i >= 90),)) for i in range(100)]
    data = LabelData(["a", "b"], False, {"train": records}, {})
    chances = balanced_chances(data)
    assert chances[:90].sum() == pytest.approx(0.5) and chances.sum() == pytest.approx(1)
    batches = GlobalBatches(100, 10, 0, 0, 1, chances)
    drawn = [index for keys in batches for _, index in keys]
    assert len(drawn) == 100 and 30 < sum(index >= 90 for index in drawn) < 70


def test_the_check_resolves_folders_and_not_images(tmp_path):
    names, images = ["a", "b"], [Path(f"{i}.png") for i in range(300)]
    records = {
        split: [LabelRecord(tmp_path / split / names[i % 2] / image, (i % 2,)) for i, image in
                enumerate(images)] for split in ("train", "valid")
    }  # fmt: skip
    with calls() as counted:
        check_labels(LabelData(names, False, records, {"train": [], "valid": []}))
    assert counted["realpath"] == 4
    (tmp_path / "link").symlink_to(tmp_path / "train")
    records["valid"] = [LabelRecord(tmp_path / "link" / "a" / "0.png", (0,))]
    faults = check_labels(LabelData(names, False, records, {"train": [], "valid": []}))
    assert [f.kind for f in faults].count("duplicate of train") == 1
