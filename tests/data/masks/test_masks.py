"""Masks of every kind, pairing, and their transforms."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from src.core.config import load_yaml, validate
from src.core.errors import UserError
from src.core.structures import IGNORE, Size
from src.data.common.images import write_image
from src.data.common.pairs import only
from src.data.masks import reader as m
from src.data.masks.settings import MaskDataset
from src.data.masks.transforms import MaskTransform
from tests.conftest import PROJECT

NAMES = ["ground", "red", "green"]
COLOURS = [(0, 0, 0), (200, 0, 0), (0, 200, 0)]
MASK = np.array([[0, 1, 2, 2], [0, 1, 1, IGNORE]], np.uint8)


def dataset(**keys) -> MaskDataset:
    return MaskDataset(**{"ALL_CLASSES": NAMES, **keys})


def save(path: Path, pixels: np.ndarray, palette: list[int] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    if palette is not None:
        picture = Image.frombytes("P", picture.size, pixels.tobytes())
        picture.putpalette(palette)
    picture.save(path)
    return path


def voc_palette() -> list[int]:
    """Pascal VOC's 256 colours, flat: the bits of the index, spread over red, green and blue."""
    return [
        sum((index >> 3 * bit + channel & 1) << 7 - bit for bit in range(8))
        for index in range(256)
        for channel in range(3)
    ]


def test_index_masks(tmp_path: Path) -> None:
    read = m.MaskReader(dataset()).read
    np.testing.assert_array_equal(read(save(tmp_path / "a.png", MASK)), MASK)
    voc = voc_palette()
    np.testing.assert_array_equal(read(save(tmp_path / "b.png", MASK, voc)), MASK)
    deep = save(tmp_path / "c.png", MASK.astype(np.uint16))
    np.testing.assert_array_equal(read(deep), MASK)


def test_shifted_and_mapped_indices(tmp_path: Path) -> None:
    ade = m.MaskReader(dataset(FIRST_INDEX=1, IGNORE_INDEX=0))
    stored = np.where(MASK == IGNORE, 0, MASK + 1).astype(np.uint8)
    np.testing.assert_array_equal(ade.read(save(tmp_path / "a.png", stored)), MASK)
    city = m.MaskReader(dataset(INDEX_MAP={7: 0, 8: 1, 26: 2}, IGNORE_INDEX=[0, 1]))
    stored = np.array([7, 8, 26] + [0] * 253, np.uint8)[MASK]
    np.testing.assert_array_equal(city.read(save(tmp_path / "b.png", stored)), MASK)


def test_colour_masks_as_rgb_and_as_a_palette_in_another_order(tmp_path: Path) -> None:
    reader = m.MaskReader(dataset(LABEL_COLORS_LIST=COLOURS, IGNORE_COLORS=[(9, 9, 9)]))
    table = np.full((256, 3), 9, np.uint8)
    table[:3] = COLOURS
    np.testing.assert_array_equal(reader.read(save(tmp_path / "a.png", table[MASK])), MASK)
    order = np.array([2, 0, 1] + [3] * 253, np.uint8)  # class -> byte in the file
    palette = np.array([COLOURS[1], COLOURS[2], COLOURS[0], (9, 9, 9)]).ravel().tolist()
    stored = save(tmp_path / "b.png", order[MASK], palette)
    np.testing.assert_array_equal(reader.read(stored), MASK)


def test_voc_palette_with_its_colours_is_read_by_index_and_keeps_255(tmp_path: Path) -> None:
    voc = voc_palette()
    colours = [tuple(voc[3 * i : 3 * i + 3]) for i in range(3)]
    reader = m.MaskReader(dataset(LABEL_COLORS_LIST=colours))
    np.testing.assert_array_equal(reader.read(save(tmp_path / "a.png", MASK, voc)), MASK)
    assert voc[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0] and voc[-3:] == [224, 224, 192]


def test_binary_masks_of_two_greys(tmp_path: Path) -> None:
    white = [(0, 0, 0), (255, 255, 255)]
    stored = np.array([[0, 255], [255, 0]], np.uint8)
    wanted = [[0, 1], [1, 0]]
    two = {"ALL_CLASSES": ["background", "person"], "LABEL_COLORS_LIST": white}
    reader = m.MaskReader(MaskDataset(**two))
    assert reader.read(save(tmp_path / "a.png", stored)).tolist() == wanted
    soft = save(tmp_path / "b.png", np.array([[0, 250], [3, 0]], np.uint8))
    with pytest.raises(UserError, match="MASK_FORMAT: binary"):
        reader.read(soft)
    assert m.MaskReader(MaskDataset(**two, MASK_FORMAT="binary")).read(soft).tolist() == wanted


@pytest.mark.parametrize("others", ["void", "ground", None])
def test_several_colours_a_class_and_all_others_are_one(tmp_path: Path, others) -> None:
    """A subset of a larger data set's classes: red is two of its colours, (7, 8, 9) is of none."""
    several = [COLOURS[0], [COLOURS[1], (90, 0, 0)], COLOURS[2]]
    table = np.array([*COLOURS, (90, 0, 0), (7, 8, 9)], np.uint8)
    stored = np.array([[0, 1, 2, 2], [0, 3, 1, 4]])
    reader = m.MaskReader(dataset(LABEL_COLORS_LIST=several, OTHERS=others))
    assert reader.dataset.colours == COLOURS
    coloured = save(tmp_path / "a.png", table[stored])
    palette = save(tmp_path / "b.png", stored.astype(np.uint8)[:, ::-1], table.ravel().tolist())
    if others is None:
        with pytest.raises(UserError, match=r"\[7, 8, 9\] \(1 pixels\).*OTHERS"):
            reader.read(coloured)
        return
    wanted = MASK.copy()
    wanted[1, 3] = IGNORE if others == "void" else 0
    np.testing.assert_array_equal(reader.read(coloured), wanted)
    np.testing.assert_array_equal(reader.read(palette, coded="color"), wanted[:, ::-1])
    unknown = save(tmp_path / "m" / "c.png", np.full((2, 4), 4, np.uint8), table.ravel().tolist())
    save(tmp_path / "m" / "a.png", table[stored])
    coded, faults = m.decide_coding(reader.dataset, [unknown, tmp_path / "m" / "a.png"])
    assert coded == "color" and not faults
    index = m.MaskReader(dataset(INDEX_MAP={7: 0, 26: 1, 27: 1, 30: 2}, OTHERS=others))
    stored = np.array([7, 26, 30, 27, 99], np.uint8)[stored]
    np.testing.assert_array_equal(index.read(save(tmp_path / "d.png", stored)), wanted)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"OTHERS": "sky"}, "OTHERS is 'void' or a class of ALL_CLASSES, not 'sky'"),
        ({"LABEL_COLORS_LIST": [COLOURS[0], [], COLOURS[2]]}, "a class without a colour"),
        ({"LABEL_COLORS_LIST": [COLOURS[0], COLOURS[:1], COLOURS[2]]}, "names a colour twice"),
        ({"LABEL_COLORS_LIST": [COLOURS[0], [(0, 0, 256)], COLOURS[2]]}, "from 0 to 255"),
        ({"LABEL_COLORS_LIST": [COLOURS[0], [1, 2], COLOURS[2]]}, "LABEL_COLORS_LIST"),
    ],
)
def test_wrong_colours_in_the_yaml_are_told(keys, said: str) -> None:
    with pytest.raises(UserError, match=said):
        validate(MaskDataset, {"ALL_CLASSES": NAMES, **keys}, "x.yaml")


def test_a_bad_colour_is_found_by_the_quick_check(tmp_path: Path) -> None:
    coloured = np.array(COLOURS, np.uint8)[np.where(MASK == IGNORE, 0, MASK)]
    wrong = coloured.copy()
    wrong[0, 0] = 1, 2, 3
    masks = {"a": coloured, "b": wrong, "c": coloured}
    for name, mask in masks.items():
        write_image(tmp_path / "i" / f"{name}.png", mask)
        save(tmp_path / "m" / f"{name}.png", mask)
    reader = m.MaskReader(dataset(LABEL_COLORS_LIST=COLOURS))
    folders = m.Folders(tmp_path / "i", tmp_path / "m", None)
    records, faults = m.read_mask_split(reader.dataset, folders)
    (fault,) = m.check_masks(records, "train", reader)
    assert not faults and fault.severity == "error" and "[1, 2, 3] (1 pixels)" in fault.detail
    assert not m.check_masks(records, "train", reader, read=2)  # a and c


GREYS = [(0, 0, 0), (2, 2, 2), (1, 1, 1)]  # of ground, sky, tree: indices 0, 1, 2


def grey_split(folder: Path, masks: dict[str, np.ndarray], **keys):
    for name, mask in masks.items():
        write_image(folder / "i" / f"{name}.jpg", np.zeros((*mask.shape[:2], 3), np.uint8))
        save(folder / "m" / f"{name}.png", mask)
    data = dataset(LABEL_COLORS_LIST=GREYS, **keys)
    records, faults = m.read_mask_split(data, m.Folders(folder / "i", folder / "m", None))
    return data, records, faults


def test_what_masks_are_is_settled_for_the_split(tmp_path: Path) -> None:
    """Sky alone may be the index 2 or the grey 2 of class 1: the other masks tell."""
    two = np.full((2, 4), 2, np.uint8)
    for name, other, wanted in (("index", MASK, 2), ("colour", np.stack([two] * 3, -1), 1)):
        data, records, faults = grey_split(tmp_path / name, {"a_sky": two, "other": other})
        assert not faults and {r.coded for r in records} == {"index" if wanted == 2 else "color"}
        assert (m.MaskReader(data).of(records[0]) == wanted).all()
        transform = MaskTransform(m.MaskReader(data), Size(4, 2), "fit", "none")
        assert (transform.load(records[0], 0)[1]["mask"] == wanted).all()


def test_masks_by_colour_beside_masks_by_index_are_refused(tmp_path: Path) -> None:
    coloured = np.stack([np.where(MASK == IGNORE, 0, MASK)] * 3, -1)
    data, records, faults = grey_split(tmp_path, {"a": coloured, "b": MASK})
    assert [(f.kind, f.severity) for f in faults] == [("mixed masks", "error")]
    assert f"{records[1].mask} by index" in faults[0].detail
    chosen = m.decide_coding(data, [records[1].mask, records[0].mask], most=1)
    assert chosen == ("index", [])  # the other was not looked at: told when it is read
    with pytest.raises(UserError, match="a.png is coded by color, others of its split are not"):
        m.MaskReader(data).read(records[0].mask, coded="index")


def test_unknown_values_are_named_with_their_pixels(tmp_path: Path) -> None:
    wrong = MASK.copy()
    wrong[0, 2:] = 7
    path = save(tmp_path / "wrong.png", wrong)
    with pytest.raises(UserError, match=r"wrong\.png .*index .*7 \(2 pixels\)"):
        m.MaskReader(dataset()).read(path)
    table = np.zeros((256, 3), np.uint8)
    table[:3], table[7] = COLOURS, (1, 2, 3)
    path = save(tmp_path / "odd.png", table[np.where(wrong == IGNORE, 0, wrong)])
    with pytest.raises(UserError, match=r"odd\.png .*colour .*\[1, 2, 3\] \(2 pixels\)"):
        m.MaskReader(dataset(LABEL_COLORS_LIST=COLOURS)).read(path)
    with pytest.raises(UserError, match="4x2, its image 5x2"):
        m.MaskReader(dataset()).read(save(tmp_path / "c.png", MASK), Size(5, 2))
    (tmp_path / "d.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="cannot read mask"):
        m.MaskReader(dataset()).read(tmp_path / "d.png")


def test_pairs_are_found_by_stem(tmp_path: Path) -> None:
    picture = np.zeros((2, 4, 3), np.uint8)
    for stem in ("img_10", "img_9", "alone"):
        write_image(tmp_path / "i" / f"{stem}.jpg", picture)
    for stem in ("img_9", "img_10", "orphan"):
        save(tmp_path / "m" / f"{stem}.png", MASK)
    folders = m.Folders(tmp_path / "i", tmp_path / "m", None)
    records, faults = m.read_mask_split(dataset(), folders)
    assert [(r.image.stem, r.mask.stem) for r in records] == [("img_9",) * 2, ("img_10",) * 2]
    kinds = {(f.kind, f.severity) for f in faults}
    assert kinds == {("image without mask", "error"), ("mask without image", "warning")}
    listed = tmp_path / "list.txt"
    listed.write_text("img_10\n")
    records, faults = m.read_mask_split(
        dataset(), m.Folders(folders.images, folders.truths, listed)
    )
    assert [r.id for r in records] == ["img_10"] and not faults


DAVIS = ["bear/00000", "bear/00001", "cow/00000"]


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (None, DAVIS),
        ([f"/JPEGImages/480p/{n}.jpg /Annotations/480p/{n}.png" for n in DAVIS[1:]], DAVIS[1:]),
        (["cow", "bear"], [DAVIS[2], *DAVIS[:2]]),  # the 2017 lists name sequences
        (["00001"], ["bear/00001"]),
        (["00000", "wolf"], []),
    ],
)
def test_davis_layout(tmp_path: Path, lines: list[str] | None, wanted: list[str]) -> None:
    """Frames of every sequence begin at 00000: they are told apart by their folders."""
    for name in DAVIS:
        write_image(tmp_path / f"JPEGImages/480p/{name}.jpg", np.zeros((2, 4, 3), np.uint8))
        save(tmp_path / f"Annotations/480p/{name}.png", MASK)
    listed = tmp_path / "list.txt" if lines else None
    if lines:
        (tmp_path / "list.txt").write_text("\n".join(lines))
    folders = m.Folders(tmp_path / "JPEGImages/480p", tmp_path / "Annotations/480p", listed)
    records, faults = m.read_mask_split(dataset(RECURSIVE=True), folders)
    assert [r.id for r in records] == wanted
    for record in records:
        assert record.image.with_suffix("").parts[-2:] == record.mask.with_suffix("").parts[-2:]
    kinds = [fault.kind for fault in faults]
    assert kinds == ([] if wanted else ["ambiguous image", "missing image"])


class Name(str):
    """Counts how often names are looked up."""

    looked = 0

    def __hash__(self) -> int:
        Name.looked += 1
        return super().__hash__()


def test_a_split_file_costs_a_look_a_name() -> None:
    files = {Name(i): Path(str(i)) for i in range(500)}
    Name.looked = 0
    assert len(only(files, list(files))) == 500
    assert Name.looked <= 3 * 500


def test_cityscapes_layout(tmp_path: Path) -> None:
    image = tmp_path / "leftImg8bit" / "ulm" / "ulm_1_leftImg8bit.png"
    write_image(image, np.zeros((2, 4, 3), np.uint8))
    folder = tmp_path / "gtFine" / "ulm"
    save(folder / "ulm_1_gtFine_labelIds.png", np.full((2, 4), 7, np.uint8))
    save(folder / "ulm_1_gtFine_color.png", np.zeros((2, 4, 3), np.uint8))
    content = load_yaml(PROJECT / "segmentation_configs" / "cityscapes.yaml")
    city = validate(MaskDataset, content, "cityscapes.yaml")
    assert len(city.names) == 19
    records, faults = m.read_mask_split(city, m.Folders(image.parents[1], folder.parent, None))
    assert [r.id for r in records] == ["ulm/ulm_1"] and not faults
    assert (m.MaskReader(city).read(records[0].mask) == 0).all()


@pytest.mark.parametrize("name", ["voc", "person", "camvid", "ade20k", "cityscapes"])
def test_yamls_are_valid(name: str) -> None:
    path = PROJECT / "segmentation_configs" / f"{name}.yaml"
    content = load_yaml(path)
    content.pop("TRAIN", None)
    assert len(validate(MaskDataset, content, str(path)).names) >= 2


def pair(tmp_path: Path) -> m.MaskRecord:
    """A picture whose colours tell the class of each pixel."""
    mask = np.zeros((60, 80), np.uint8)
    mask[10:40, 20:60] = 1
    mask[30:, 50:] = 2
    table = np.array(COLOURS, np.uint8)
    image, stored = tmp_path / "p.png", tmp_path / "masks" / "p.png"
    write_image(image, table[mask])
    return m.MaskRecord(image, save(stored, mask), "p")


@pytest.mark.parametrize("preset", ["none", "flip", "jitter", "strong"])
def test_image_and_mask_move_together(tmp_path: Path, preset) -> None:
    record = pair(tmp_path)
    transform = MaskTransform(m.MaskReader(dataset()), Size(64, 64), "fit", preset)
    seen = set()
    for seed in range(6):
        image, target, geometry = transform.load(record, seed)
        mask = target["mask"]
        assert mask.shape == image.shape[:2] and geometry.original == Size(80, 60)
        assert mask.shape == ((64, 64) if preset in ("jitter", "strong") else (48, 64))
        inner = cv2.erode((mask == 1).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        if inner.any() and preset != "strong":
            assert (image[inner][:, 0] > 150).all() and (image[inner][:, 1] < 50).all()
        if preset == "jitter" and (mask == IGNORE).any():
            assert (image[mask == IGNORE] == (124, 116, 104)).all()
            seen.add("padded")
        again = pickle.loads(pickle.dumps(transform)).load(record, seed)
        np.testing.assert_array_equal(again[0], image)
        np.testing.assert_array_equal(again[1]["mask"], mask)
    assert preset != "jitter" or seen == {"padded"}


def test_validation_masks_keep_their_size(tmp_path: Path) -> None:
    transform = MaskTransform(m.MaskReader(dataset()), Size(32, 32), "fit", "jitter", False)
    image, target, _ = transform.load(pair(tmp_path), 5)
    assert image.shape == (24, 32, 3) and target["mask"].shape == (60, 80)


def test_counts_and_balanced_weights(tmp_path: Path) -> None:
    record = pair(tmp_path)
    counts = m.count_pixels([record, record], m.MaskReader(dataset()))
    assert counts.sum() == 2 * 60 * 80 and counts[-1] == 0
    assert counts[1] == 2 * (30 * 40 - 10 * 10) and counts[2] == 2 * 30 * 30
    weights = m.balanced_weights(counts[:-1])
    assert weights[2] > weights[1] == 1 > weights[0]


def test_written_masks_come_back(tmp_path: Path) -> None:
    m.write_mask(tmp_path / "x.png", MASK)
    np.testing.assert_array_equal(m.MaskReader(dataset()).read(tmp_path / "x.png"), MASK)


def test_camvid(shared: Path) -> None:
    content = load_yaml(PROJECT / "segmentation_configs" / "camvid.yaml")
    camvid = validate(MaskDataset, content, "camvid.yaml")
    root = shared / "data" / "camvid"
    records, faults = m.read_mask_split(camvid, m.split_folders(camvid, "valid", root))
    assert (
        len(records) == 101
        and not faults
        and not m.check_masks(records, "valid", m.MaskReader(camvid))
    )
    counts = m.count_pixels(records[:5], m.MaskReader(camvid))
    assert counts.sum() == 5 * 320 * 240 and (counts > 0).sum() > 8


def test_the_doctor_knows_masks(tmp_path: Path, monkeypatch, caplog) -> None:
    import json
    import sys

    import yaml

    from src.data import check

    for split in ("train", "valid"):
        for number in range(3):
            picture = np.full((6, 8, 3), 40 * number + (split == "valid"), np.uint8)
            write_image(tmp_path / split / "i" / f"{number}.png", picture)
            mask = np.full((6, 8), min(number, 1), np.uint8)
            save(tmp_path / split / "m" / f"{number}.png", mask)
    bad = np.zeros((6, 8), np.uint8)
    bad[0, 0] = IGNORE
    save(tmp_path / "valid" / "m" / "0.png", bad)
    bad[0, :5] = 9
    save(tmp_path / "train" / "m" / "0.png", bad)
    save(tmp_path / "train" / "m" / "1.png", bad[:, :4])
    (tmp_path / "train" / "m" / "2.png").unlink()
    config = {"DATA_ROOT": str(tmp_path), "ALL_CLASSES": NAMES, "TRAIN": {"lr": 1e-3}}
    config |= {f"{s.upper()}_{k}": f"{s}/{k[0].lower()}" for s in ("train", "valid")
               for k in ("IMAGES", "MASKS")}  # fmt: skip
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    words = ["check", "--config", str(tmp_path / "c.yaml"), "--out-dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        check.main()
    assert end.value.code == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    faults = {(f["kind"], Path(f["path"]).name): f["detail"] for f in report["train"]["faults"]}
    assert "9 (5 pixels)" in faults["bad mask", "0.png"]
    assert "4x6, its image 8x6" in faults["bad mask", "1.png"]
    assert ("image without mask", "2.png") in faults
    assert report["valid"]["pixels"] == {"ground": 47, "red": 96, "green": 0}
    assert report["valid"]["images_with"]["red"] == 2
    (row,) = [r for r in (tmp_path / "out" / "report.txt").read_text().splitlines() if "(w" in r]
    assert row.split()[-3:] == ["1", "0.69", "1"]  # pixels, %, images of valid
    kinds = [f["kind"] for f in report["valid"]["faults"]]
    assert kinds == ["class without pixels"]
    assert (tmp_path / "out" / "samples_valid.jpg").is_file()


def test_voc_segmentation_is_unpacked_from_the_archive_of_boxes(tmp_path: Path) -> None:
    import io
    import tarfile

    from src.data import fetch_voc

    archive = tmp_path / "VOC2012.tar"
    png = io.BytesIO()
    Image.fromarray(MASK).save(png, format="PNG")
    with tarfile.open(archive, "w") as tar:
        for name, content in (
            ("ImageSets/Main/train.txt", b"z"),
            ("ImageSets/Segmentation/trainval.txt", b"a b"),
            ("ImageSets/Segmentation/train.txt", b"a\n"),
            *((f"JPEGImages/{s}.jpg", b"jpeg") for s in "abz"),
            *((f"SegmentationClass/{s}.png", png.getvalue()) for s in "ab"),
            *((f"SegmentationObject/{s}.png", b"no") for s in "ab"),
        ):
            entry = tarfile.TarInfo(f"VOCdevkit/VOC2012/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    assert fetch_voc.unpack(archive, "train", tmp_path / "train", fetch_voc.MASKS) == 1
    found = sorted(p.relative_to(tmp_path).as_posix() for p in (tmp_path / "train").rglob("*.*"))
    assert found == ["train/images/a.jpg", "train/masks/a.png"]
    assert (m.MaskReader(dataset()).read(tmp_path / "train/masks/a.png") == MASK).all()
    parts = fetch_voc.segmentation_parts()
    assert [(p.listed, p.split) for p in parts] == [("train", "train"), ("val", "valid")]
    assert len({p.filename for p in parts}) == 1 and "2012" in parts[0].filename
