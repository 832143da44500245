"""Records of every annotation format, and the faults each reader must tell."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from src.core.errors import UserError
from src.data.boxes import coco
from src.data.boxes.reader import read_split, split_paths
from src.data.common.images import write_image
from tests.data.helpers import (
    FlatVoc,
    box_dataset,
    kinds,
    picture,
    voc_object,
    voc_text,
    write_coco,
)


@pytest.fixture
def flat(tmp_path):
    return FlatVoc(tmp_path)


def one(records, stem):
    return next(record for record in records if record.id == stem)


def test_voc_record(flat):
    objects = [voc_object("dog", (11, 6, 30, 40), 1), voc_object("cat", ("1.5", 1, 64, 48))]
    image = flat.add("Two", objects, suffix=".JPG")
    records, faults = read_split(flat.dataset(), "train")
    record = one(records, "Two")
    assert not faults and [r.id for r in records] == ["ok", "Two"]
    assert record.image == image and record.annotation == flat.xml("Two")
    # Counted from 1, last pixel included: columns 11 to 30 are 20 pixels, 10 to 29 from 0.
    assert record.boxes.tolist() == [[10, 5, 30, 40], [0.5, 0, 64, 48]]
    assert record.labels.tolist() == [2, 1] and record.difficult.tolist() == [True, False]
    assert record.size == (64, 48) and not record.crowd.any()
    types = (record.boxes.dtype, record.labels.dtype, record.difficult.dtype)
    assert types == (np.float32, np.int64, bool)


def test_images_without_objects_are_kept(flat):
    flat.add("bare", [])
    records, faults = read_split(flat.dataset(), "train")
    assert one(records, "bare").boxes.shape == (0, 4) and not faults


def test_boxes_counted_from_zero(flat):
    flat.add("zero", [voc_object(box=(0, 0, 10, 10))])
    records, faults = read_split(flat.dataset(), "train")
    assert one(records, "zero").boxes.tolist() == [[0, 0, 10, 10]] and not faults


@pytest.mark.parametrize(
    ("box", "kind", "kept"),
    [
        ((60, 40, 70, 50), "box over the edge", [59, 39, 64, 48]),
        ((-5, 5, 10, 10), "box over the edge", [0, 4, 10, 10]),
        ((20, 20, 20, 20), "box without area", None),
        ((30, 5, 20, 20), "box without area", None),
        ((70, 5, 90, 20), "box outside", None),
    ],
)
def test_boxes_are_repaired_and_counted(flat, box, kind, kept):
    flat.add("odd", [voc_object(box=box), voc_object("dog", (5, 5, 9, 9))])
    records, faults = read_split(flat.dataset(), "train")
    assert kinds(faults) == [(kind, "repaired")]
    assert faults[0].path == flat.xml("odd")
    record = one(records, "odd")
    assert record.boxes.tolist() == ([kept] if kept else []) + [[4, 4, 9, 9]]
    assert record.labels.tolist() == ([1] if kept else []) + [2]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (voc_text([voc_object("Dog")]), "unknown class"),
        (voc_text([voc_object("")]), "unknown class"),
        (voc_text([voc_object(box=("a", 1, 2, 3))]), "bad number"),
        (voc_text([voc_object(box=("nan", 1, 2, 3))]), "bad number"),
        (voc_text([voc_object(box=(1, 2, 3))]), "bad number"),
        (voc_text(["<object><name>cat</name></object>"]), "object without box"),
        (voc_text([voc_object()])[:-20], "unreadable annotation"),
        ("", "unreadable annotation"),
    ],
)
def test_voc_errors(flat, text, kind):
    flat.add("bad")
    flat.xml("bad").write_text(text)
    _, faults = read_split(flat.dataset(), "train")
    assert kinds(faults) == [(kind, "error")] and faults[0].path == flat.xml("bad")


def test_did_you_mean(flat):
    flat.add("bad", [voc_object("dogg")])
    assert "did you mean 'dog'" in read_split(flat.dataset(), "train")[1][0].detail


def test_missing_pairs(flat):
    flat.xml("alone").write_text(voc_text([voc_object()]))
    flat.add("widow")
    flat.xml("widow").unlink()
    records, faults = read_split(flat.dataset(), "train")
    assert [record.id for record in records] == ["ok"]
    wanted = [("missing annotation", "error"), ("missing image", "error")]
    assert sorted(kinds(faults)) == wanted
    assert {fault.path.name for fault in faults} == {"widow.png", "alone.xml"}


def test_two_images_of_one_stem(flat):
    flat.add("ok", suffix=".jpg")
    assert kinds(read_split(flat.dataset(), "train")[1]) == [("ambiguous image", "error")]


def test_file_name_only_compared(flat):
    flat.add("a", filename="a.png")
    flat.add("b", filename="other.jpg")
    records, faults = read_split(flat.dataset(), "train")
    assert len(records) == 3 and kinds(faults) == [("file name disagrees", "warning")]


@pytest.mark.parametrize("size", [None, (0, 0)])
def test_size_from_the_image(flat, size):
    flat.add("a", [voc_object(box=(60, 40, 70, 50))], size=size)
    records, faults = read_split(flat.dataset(), "train")
    assert one(records, "a").boxes.tolist() == [[59, 39, 64, 48]] and one(records, "a").size is None
    assert kinds(faults) == [("no size", "repaired"), ("box over the edge", "repaired")]


def test_a_swapped_size_does_not_cut_boxes(flat):
    flat.add("a", [voc_object(box=(10, 10, 64, 40))], size=(48, 64))
    records, faults = read_split(flat.dataset(), "train")
    assert one(records, "a").boxes.tolist() == [[9, 9, 64, 40]] and not faults


def test_difficult_skip_is_for_training_only(flat):
    for split in ("train", "valid"):
        flat.add("hard", [voc_object(difficult=1), voc_object("dog")], split=split)
    dataset = flat.dataset(DIFFICULT="skip")
    assert one(read_split(dataset, "train")[0], "hard").labels.tolist() == [2]
    assert one(read_split(dataset, "valid")[0], "hard").difficult.tolist() == [True, False]
    assert len(one(read_split(flat.dataset(), "train")[0], "hard").labels) == 2


def test_devkit(flat):
    for stem in ("b", "a", "unused"):
        flat.add(stem)
    listing = flat.root / "ImageSets" / "trainval.txt"
    listing.parent.mkdir()
    listing.write_text("b  1\na -1\n\nmissing\na\n")
    dataset = flat.dataset(TRAIN_SPLIT="ImageSets/trainval.txt")
    records, faults = read_split(dataset, "train")
    assert [record.id for record in records] == ["b", "a"]
    assert kinds(faults) == [("repeated id", "repaired"), ("missing image", "error")]


def test_missing_folders(flat, tmp_path):
    for more in ({"TRAIN_IMG": "no"}, {"TRAIN_ANNOT": "no"}, {"TRAIN_SPLIT": "no.txt"}):
        with pytest.raises(UserError, match=r"no such folder|cannot read the split file"):
            read_split(flat.dataset(**more), "train")
    with pytest.raises(UserError, match="--data-root"):
        read_split(flat.dataset(), "train", tmp_path / "elsewhere")


def test_data_root(flat, tmp_path, monkeypatch):
    dataset = box_dataset("nowhere")
    assert len(read_split(dataset, "train", tmp_path)[0]) == 1
    monkeypatch.chdir(tmp_path.parent)
    images, _, _ = split_paths(box_dataset(tmp_path.name), "train")
    assert images.is_dir()
    absolute = box_dataset("nowhere", TRAIN_IMG=tmp_path / "train/images")
    assert split_paths(absolute, "train")[0] == tmp_path / "train/images"


def test_coco(tmp_path):
    folder = tmp_path / "train" / "images"
    write_image(folder / "a.jpg", picture(64, 48))
    write_image(folder / "sub" / "b.png", picture(30, 20))
    write_image(folder / "extra.jpg", picture(30, 20))
    dataset = write_coco(
        tmp_path,
        [
            {"id": 5, "file_name": "a.jpg", "width": 64, "height": 48},
            {"id": 3, "file_name": "sub/b.png"},
        ],
        [
            {"id": 1, "image_id": 5, "category_id": 90, "bbox": [10, 5, 20, 30.5], "iscrowd": 0},
            {"id": 2, "image_id": 5, "category_id": 7, "bbox": [0, 0, 70, 48], "iscrowd": 1},
            {"id": 3, "image_id": 3, "category_id": 7, "bbox": [1, 1, 0, 4]},
        ],
    )
    records, faults = read_split(dataset, "train")
    assert [record.id for record in records] == ["a", "b"]
    assert records[0].boxes.tolist() == [[10, 5, 30, 35.5], [0, 0, 64, 48]]
    assert records[0].labels.tolist() == [2, 1] and records[0].crowd.tolist() == [False, True]
    assert records[0].size == (64, 48) and records[1].image == folder / "sub" / "b.png"
    assert kinds(faults) == [
        ("box over the edge", "repaired"),
        ("box without area", "repaired"),
        ("missing annotation", "warning"),
    ]


def test_coco_errors(tmp_path):
    write_image(tmp_path / "train/images/a.jpg", picture(64, 48))
    with pytest.raises(UserError, match="FORMAT coco reads one JSON file, and .* is a folder"):
        coco.read(tmp_path / "train/images", tmp_path / "train", None, ["__background__", "a"])
    entry = {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}
    bird = {"image_id": 1, "category_id": 8, "bbox": [1, 1, 5, 5]}
    dataset = write_coco(
        tmp_path,
        [entry, {"id": 2, "file_name": "gone.jpg"}, {**entry, "id": 3}],
        [
            bird,
            bird,
            {"image_id": 1, "category_id": 7, "bbox": [1, 1, 5]},
            {"image_id": 99, "category_id": 7, "bbox": [1, 1, 5, 5]},
        ],
        categories=[(7, "cat"), (8, "bird")],
    )
    records, faults = read_split(dataset, "train")
    expected = {"unknown class": 1, "bad number": 1, "missing image": 2, "ambiguous image": 1}
    found = [fault.kind for fault in faults]
    assert {fault.severity for fault in faults} == {"error"}
    assert {kind: found.count(kind) for kind in found} == expected
    assert any("(2 objects)" in fault.detail for fault in faults)
    (tmp_path / "train.json").write_text('{"images": []}')
    with pytest.raises(UserError, match="no list 'annotations'"):
        read_split(dataset, "train")
    for text in ("{", "[" * 100_000):
        (tmp_path / "train.json").write_text(text)
        with pytest.raises(UserError, match="not valid JSON"):
            read_split(dataset, "train")


def test_coco_with_ids_and_sizes_that_are_none(tmp_path):
    for stem in "abc":
        write_image(tmp_path / f"train/images/{stem}.jpg", picture(64, 48))
    dataset = write_coco(
        tmp_path,
        [
            {"id": 1, "file_name": "a.jpg", "width": "wide", "height": 48},
            {"id": [2], "file_name": "b.jpg", "width": 64, "height": 48},
            {"id": 1, "file_name": "c.jpg", "width": 64, "height": 48},
        ],
        [
            {"image_id": 1, "category_id": 7, "bbox": [1, 1, 5, 5]},
            {"image_id": [2], "category_id": 7, "bbox": [1, 1, 90, 5]},
            {"image_id": {}, "category_id": 7, "bbox": [1, 1, 5, 5]},
        ],
        categories=[(7, "cat")],
    )
    records, faults = read_split(dataset, "train")
    assert [len(record.boxes) for record in records] == [1, 1, 1]
    assert {(fault.kind, fault.severity) for fault in faults} == {
        ("missing image", "error"),
        ("ambiguous image", "error"),  # two images, one id
        ("no size", "repaired"),
        ("box over the edge", "repaired"),
    }


def test_yolo(tmp_path):
    root = tmp_path / "train"
    for stem in ("a", "bare", "none"):
        write_image(root / "images" / f"{stem}.png", picture(64, 48))
    (root / "labels").mkdir()
    (root / "labels" / "classes.txt").write_text("cat\ndog\n")
    (root / "labels" / "bare.txt").touch()
    lines = ["1 0.5 0.5 0.5 0.25", "", "0 0 0 0.5 0.5", "0 0.25 0.25 0.5 0.25 0.5 0.75"]
    (root / "labels" / "a.txt").write_text("\n".join(lines))
    records, faults = read_split(box_dataset(tmp_path, FORMAT="yolo"), "train")
    assert [record.id for record in records] == ["a", "bare", "none"]
    assert records[0].boxes.tolist() == [[16, 18, 48, 30], [0, 0, 16, 12], [16, 12, 32, 36]]
    assert records[0].labels.tolist() == [2, 1, 1]
    expected = [("box over the edge", "repaired"), ("missing annotation", "warning")]
    assert kinds(faults) == expected


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("2 0.5 0.5 0.1 0.1", "unknown class"),
        ("0.5 0.5 0.5 0.1 0.1", "unknown class"),
        ("-1 0.5 0.5 0.1 0.1", "unknown class"),
        ("0 320 240 100 100", "bad number"),
        ("0 0.5 0.5 0.1", "bad number"),
        ("0 0.5 0.5 0.1 0.1 0.9", "bad number"),
        ("cat 0.5 0.5 0.1 0.1", "bad number"),
        ("0 nan 0.5 0.1 0.1", "bad number"),
        ("nan 0.5 0.5 0.1 0.1", "unknown class"),
    ],
)
def test_yolo_errors(tmp_path, line, kind):
    write_image(tmp_path / "train/images/a.png", picture(64, 48))
    (tmp_path / "train/labels").mkdir()
    (tmp_path / "train/labels/a.txt").write_text(line)
    _, faults = read_split(box_dataset(tmp_path, FORMAT="yolo"), "train")
    assert kinds(faults) == [(kind, "error")]


def test_yolo_counts_pixels_of_the_upright_image(tmp_path):
    stored = Image.fromarray(picture(64, 48))
    exif = stored.getexif()
    exif[0x0112] = 6
    (tmp_path / "train/images").mkdir(parents=True)
    (tmp_path / "train/labels").mkdir()
    stored.save(tmp_path / "train/images/a.jpg", exif=exif)
    (tmp_path / "train/labels/a.txt").write_text("0 0.5 0.5 1 1")
    records, _ = read_split(box_dataset(tmp_path, FORMAT="yolo"), "train")
    assert records[0].boxes.tolist() == [[0, 0, 48, 64]]


def test_bccd(shared):
    """The real thing, with the faults it was published with."""
    dataset = box_dataset(
        shared / "data" / "bccd",
        TRAIN_IMG="JPEGImages",
        TRAIN_ANNOT="Annotations",
        TRAIN_SPLIT="ImageSets/Main/trainval.txt",
        VALID_IMG="JPEGImages",
        VALID_ANNOT="Annotations",
        VALID_SPLIT="ImageSets/Main/test.txt",
        CLASSES=["RBC", "WBC", "Platelets"],
    )
    train, faults = read_split(dataset, "train")
    valid, none = read_split(dataset, "valid")
    assert (len(train), len(valid)) == (292, 72) and not none
    assert kinds(faults) == [("box without area", "repaired")] * 2
    assert sum(len(record.boxes) for record in train + valid) == 4888 - 2
