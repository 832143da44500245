"""One drawn set of objects in every format: the same masks; what is wrong is told."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from src.core.cli import parse
from src.core.errors import UserError
from src.core.structures import Size
from src.data.check import check
from src.data.drawn.instances import draw_instance_dataset
from src.data.instances import outlines
from src.data.instances.doctor import examine_instances
from src.data.instances.reader import InstanceReader, check_instances, read_instance_split
from src.data.instances.settings import InstanceDataset
from src.data.instances.transforms import InstanceTransform
from src.segmentation.settings import CheckSegmentation

NAMES = ["circle", "square", "triangle", "cross"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    return draw_instance_dataset(tmp_path_factory.mktemp("drawn"), train=6, valid=2)


def dataset(root: Path, form: str = "coco", annotation: str = "instances.json") -> InstanceDataset:
    stuff = ["ground"] if form == "panoptic" else []
    folders = {
        f"{split.upper()}_{key}": f"{split}/{value}"
        for split in ("train", "valid")
        for key, value in (("IMG", "images"), ("ANNOT", annotation))
    }
    return InstanceDataset(
        DATA_ROOT=root, FORMAT=form, CLASSES=[*NAMES, *stuff], STUFF_CLASSES=stuff, **folders
    )


def objects(data: InstanceDataset) -> dict[str, list[tuple[int, np.ndarray]]]:
    """id -> (label, mask) of the training split, which has to be without faults."""
    records, faults = read_instance_split(data, "train")
    assert not faults
    reader = InstanceReader(data)
    assert not check_instances(records, "train", reader)
    found = {}
    for record in records:
        one = reader.of(record)
        pairs = zip(one.labels.tolist(), outlines.from_rles(one.rles, one.size))
        found[record.id] = [(label, mask) for label, mask in pairs if label < len(NAMES)]
    return found


def as_voc(root: Path) -> InstanceDataset:
    """Objects and classes as palette PNGs, 255 on a line around each object."""
    for name, own in objects(dataset(root)).items():
        size = own[0][1].shape
        ids, classes = np.zeros((2, *size), np.uint8)
        for number, (label, mask) in enumerate(own, start=1):
            inner = cv2.erode(mask, np.ones((3, 3), np.uint8))
            ids[mask > 0] = classes[mask > 0] = 255
            ids[inner > 0], classes[inner > 0] = number, label + 1
        for folder, values in (("SegmentationObject", ids), ("SegmentationClass", classes)):
            (root / "train" / folder).mkdir(exist_ok=True)
            picture = Image.fromarray(values).convert("P")
            picture.save(root / "train" / folder / f"{name}.png")
    return dataset(root, "voc", "SegmentationObject")


def as_polygons(root: Path, form: str) -> InstanceDataset:
    """Outlines of the masks' largest parts, in COCO's JSON or YOLO's lines."""
    content = json.loads((root / "train/instances.json").read_text())
    images = {image["id"]: image for image in content["images"]}
    lines: dict[str, list[str]] = {image["file_name"]: [] for image in content["images"]}
    for item in content["annotations"]:
        image = images[item["image_id"]]
        size = Size(image["width"], image["height"])
        mask = outlines.from_rles([outlines.to_rle(item["segmentation"], size)], size)[0]
        parts, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        points = max(parts, key=len)[:, 0].astype(float) + 0.5
        item["segmentation"] = [points.reshape(-1).tolist()]
        shares = (points / size).reshape(-1)
        lines[image["file_name"]].append(
            " ".join([str(item["category_id"] - 1), *(f"{v:.6f}" for v in shares)])
        )
    if form == "coco":
        (root / "train/polygons.json").write_text(json.dumps(content))
        return dataset(root, "coco", "polygons.json")
    (root / "train/labels").mkdir(exist_ok=True)
    for name, text in lines.items():
        (root / "train/labels" / name.replace(".jpg", ".txt")).write_text("\n".join(text))
    return dataset(root, "yolo", "labels")


def test_run_lengths_and_panoptic_pictures_hold_the_same_masks(drawn: Path) -> None:
    first, second = objects(dataset(drawn)), objects(dataset(drawn, "panoptic", "panoptic.json"))
    assert list(first) == list(second) and sum(map(len, first.values())) > 6
    for name, own in first.items():
        for (label, mask), (other, again) in zip(own, second[name], strict=True):
            assert label == other
            np.testing.assert_array_equal(mask, again)


@pytest.mark.parametrize("form", ["polygons", "yolo", "voc"])
def test_other_formats_hold_them_but_for_their_edges(drawn: Path, form: str) -> None:
    data = as_voc(drawn) if form == "voc" else as_polygons(drawn, form.replace("polygons", "coco"))
    exact, found = objects(dataset(drawn)), objects(data)
    assert list(exact) == list(found)
    shared = []
    for name, own in exact.items():
        assert [label for label, _ in own] == [label for label, _ in found[name]]
        for (_, mask), (_, other) in zip(own, found[name]):
            shared.append((mask & other).sum() / (mask | other).sum())
    assert np.median(shared) > (0.85 if form == "voc" else 0.93)


def test_counted_run_lengths_and_pycocotools() -> None:
    """Our door to the run lengths gives what pycocotools gives."""
    coco = pytest.importorskip("pycocotools.mask")
    size = Size(20, 10)
    polygon = [2.0, 1.0, 15.5, 1.0, 15.5, 8.2, 2.0, 8.2]
    counted = {"size": [10, 20], "counts": [5, 10, 185]}
    for value in ([polygon, [16.0, 2, 19, 2, 19, 6]], counted):
        parts = coco.frPyObjects(value, 10, 20)
        expected = coco.merge(parts) if isinstance(parts, list) else parts
        found = outlines.to_rle(outlines.parse_outline(value), size)
        assert found["counts"] == expected["counts"]
        np.testing.assert_array_equal(outlines.from_rles([found], size)[0], coco.decode(expected))
        assert outlines.mask_areas([found])[0] == coco.area(expected)
        again = outlines.to_rles(outlines.from_rles([found], size))[0]
        assert outlines.as_text(again)["counts"] == expected["counts"].decode()


@pytest.mark.parametrize("preset", ["flip", "jitter", "lsj"])
def test_masks_move_with_their_pixels(drawn: Path, preset: str) -> None:
    """A mask made an image of its own goes the same way, whatever is drawn."""
    data = dataset(drawn)
    reader = InstanceReader(data)
    record = max(read_instance_split(data, "train")[0], key=lambda one: len(one.labels))
    transform = InstanceTransform(reader, Size(96, 64), "fit", preset)
    one = reader.of(record)
    masks = outlines.from_rles(one.rles, one.size)
    for seed in range(4):
        image, target, geometry = transform.load(record, seed)
        assert image.shape[:2] == target["masks"].shape[1:] == geometry.resized[::-1]
        picture = np.repeat((masks[0] * 255)[..., None], 3, axis=2)
        moved, same, _ = transform.with_masks(picture, masks, seed)
        inside = same[0].astype(bool)
        if inside.sum() > 50:
            assert moved[inside].mean() > 200
            beside = ~cv2.dilate(same[0], np.ones((5, 5), np.uint8)).astype(bool)
            assert np.median(moved[beside]) in (0, 104, 116, 124)  # black, or the padding's grey
        assert len(target["labels"]) == same.any(axis=(1, 2)).sum()


def test_faults_are_told(drawn: Path, tmp_path: Path) -> None:
    content = json.loads((drawn / "train/instances.json").read_text())
    first = content["annotations"]
    first[0]["segmentation"] = [[1.0, 2.0]]
    first[1]["segmentation"] = {"size": [3, 3], "counts": "01"}
    first[2]["category_id"] = 77
    first[3]["segmentation"] = {"size": [10**6, 2], "counts": [5]}
    content["images"][0]["width"] += 5
    (drawn / "train/faulty.json").write_text(json.dumps(content))
    data = dataset(drawn, "coco", "faulty.json")
    records, faults = read_instance_split(data, "train")
    assert [fault.kind for fault in faults] == ["bad number", "unknown class"]
    assert "polygon" in faults[0].detail
    report = examine_instances({"train": (records, faults)}, InstanceReader(data))
    told = {fault.kind: fault for fault in report.splits["train"].faults}
    assert {"bad number", "unknown class", "bad mask", "wrong size"} <= set(told)
    assert "run lengths" in told["bad mask"].detail
    with pytest.raises(UserError, match=r"no such folder: .*faulty"):
        read_instance_split(dataset(drawn, "panoptic", "faulty.json"), "train")
    (drawn / "train/boxes").mkdir()
    for path in (drawn / "train/images").glob("*.jpg"):
        (drawn / "train/boxes" / f"{path.stem}.txt").write_text("0 .5 .5 .2 .2\n")
    _, faults = read_instance_split(dataset(drawn, "yolo", "boxes"), "train")
    assert {fault.kind for fault in faults} == {"box without outline"}
    wrong = dataset(drawn, "panoptic", "panoptic.json").model_copy(update={"STUFF_CLASSES": []})
    _, faults = read_instance_split(wrong, "train")
    assert [fault.kind for fault in faults] == ["thing or stuff"] and "ground" in faults[0].detail


def test_outlines_without_a_pixel_are_left_out(drawn: Path) -> None:
    """pycocotools draws nothing of a thin one: a training is not to end there."""
    content = json.loads((drawn / "train/instances.json").read_text())
    content["annotations"][0]["segmentation"] = [[9.6, 8.3, 9.6, 8.3, 10.7, 8.3, 10.7, 8.3]]
    (drawn / "train/thin.json").write_text(json.dumps(content))
    records, faults = read_instance_split(dataset(drawn, "coco", "thin.json"), "train")
    reader = InstanceReader(dataset(drawn, "coco", "thin.json"))
    assert not faults
    assert len(reader.of(records[0]).rles) == len(records[0].labels) - 1
    assert len(reader.of(records[0]).labels) == len(reader.of(records[0]).crowd)
    told = check_instances(records, "train", reader)
    assert [(one.kind, one.severity) for one in told] == [("object without a pixel", "repaired")]
    report = examine_instances({"train": (records, [])}, reader)
    assert "object without a pixel" in {one.kind for one in report.splits["train"].faults}


@pytest.mark.parametrize(
    "value",
    [
        [[1, 2, 3, {}, 5, 6]],
        [[1, 2, 3, "a", 5, 6]],
        [[1, 2, 3, None, 5, 6]],
        [[1, 2, 3, 4, 5, 1e9]],  # drawn, it would take all memory
        {"size": [None, 3], "counts": [1]},
        {"size": [5, 3], "counts": ["a"]},
        {"size": [5, 3], "counts": [-1, 16]},
    ],
)
def test_outlines_that_are_none(value: object) -> None:
    with pytest.raises(ValueError, match=r"polygon|run lengths"):
        outlines.parse_outline(value)


def test_run_lengths_of_too_few_pixels_are_a_fault() -> None:
    """They have an area, and would fail when a worker draws them."""
    for counts in ("0a1", [49, 1]):
        with pytest.raises(ValueError, match="pixels"):
            outlines.to_rle({"size": [50, 70], "counts": counts}, Size(70, 50))


def test_the_doctor_reads_them_all(drawn: Path, tmp_path: Path) -> None:
    config = tmp_path / "demo.yaml"
    config.write_text(
        f"DATA_ROOT: {drawn}\nFORMAT: panoptic\nCLASSES: [{', '.join(NAMES)}, ground]\n"
        "STUFF_CLASSES: [ground]\nTRAIN: {task: panoptic}\n"
        "TRAIN_IMG: train/images\nTRAIN_ANNOT: train/panoptic.json\n"
        "VALID_IMG: valid/images\nVALID_ANNOT: valid/panoptic.json\n"
    )
    words = ["--config", str(config), "--out-dir", str(tmp_path / "out")]
    assert check("segmentation", parse(CheckSegmentation, words)) == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["train"]["images_with"]["ground"] == 6
    assert (tmp_path / "out/samples_train.jpg").is_file()
