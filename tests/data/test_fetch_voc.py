"""Fetching VOC, from a small archive on loopback with its own checksum."""

from __future__ import annotations

import hashlib
import io
import tarfile
from functools import partial
from pathlib import Path

import cv2
import pytest

from src.core.config import load_yaml, validate
from src.core.errors import UserError
from src.data.boxes.reader import read_split
from src.data.boxes.settings import BoxDataset
from src.data.fetch_voc import Archive, fetch, official_archives
from tests.core.test_download import Quiet
from tests.data.helpers import picture, voc_object, voc_text

CONFIG = Path(__file__).resolve().parents[2] / "detection_configs" / "voc.yaml"


def add(tar, name, content: bytes):
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def make_archive(folder: Path, filename: str, year: str, listed: str, ids, missing=()) -> str:
    """A VOCdevkit in the official order (annotations before the list); returns its md5."""
    with tarfile.open(folder / filename, "w") as tar:
        for stem in [*ids, "unlisted"]:
            xml = voc_text([voc_object("dog")], filename=f"{stem}.jpg").encode()
            add(tar, f"VOCdevkit/VOC{year}/Annotations/{stem}.xml", xml)
        names = "\n".join(ids).encode()
        add(tar, f"VOCdevkit/VOC{year}/ImageSets/Main/{listed}.txt", names)
        add(tar, f"VOCdevkit/VOC{year}/ImageSets/Main/dog_{listed}.txt", b"other 1")
        jpeg = cv2.imencode(".jpg", picture(64, 48))[1].tobytes()
        for stem in [*ids, "unlisted"]:
            if stem not in missing:
                add(tar, f"VOCdevkit/VOC{year}/JPEGImages/{stem}.jpg", jpeg)
    return hashlib.md5((folder / filename).read_bytes()).hexdigest()


@pytest.fixture
def site(tmp_path, serve):
    folder = tmp_path / "site"
    folder.mkdir()
    base = serve(partial(Quiet, directory=str(folder)))
    rows = [
        ("trainval07.tar", "2007", "trainval", ["000005", "000007"], "train"),
        ("trainval12.tar", "2012", "trainval", ["2008_000002"], "train"),
        ("test07.tar", "2007", "test", ["000001"], "valid"),
    ]
    parts = [
        Archive(f"{base}/{name}", name, make_archive(folder, name, year, listed, ids), listed, to)
        for name, year, listed, ids, to in rows
    ]
    return folder, parts


def test_layout_is_what_voc_yaml_expects(site, tmp_path, monkeypatch):
    _, parts = site
    fetch(tmp_path / "input", parts)
    monkeypatch.chdir(tmp_path)
    content = load_yaml(CONFIG)
    content.pop("TRAIN", None)
    dataset = validate(BoxDataset, content, str(CONFIG))
    train, faults = read_split(dataset, "train")
    valid, more = read_split(dataset, "valid")
    assert [record.id for record in train] == ["000005", "000007", "2008_000002"]
    assert [record.id for record in valid] == ["000001"] and not faults + more
    assert dataset.names[train[0].labels[0]] == "dog"


def test_a_second_run_fetches_nothing(site, tmp_path):
    folder, parts = site
    fetch(tmp_path / "input", parts)
    for archive in [*folder.iterdir(), *(tmp_path / "input/voc_07_12/archives").iterdir()]:
        archive.unlink()
    fetch(tmp_path / "input", parts)


def test_an_interrupted_unpacking_goes_on(site, tmp_path):
    _, parts = site
    result = fetch(tmp_path / "input", parts)
    image = result / "train" / "images" / "000005.jpg"
    whole = image.read_bytes()
    image.write_bytes(whole[:50])
    for marker in (result / ".unpacked").iterdir():
        marker.unlink()
    fetch(tmp_path / "input", parts)
    assert image.read_bytes() == whole


def test_wrong_checksum(site, tmp_path):
    _, parts = site
    with pytest.raises(UserError, match="checksum is wrong"):
        fetch(tmp_path / "input", [parts[0]._replace(md5="0" * 32)])
    assert not list((tmp_path / "input").rglob("*.jpg"))


def test_archive_without_a_named_image(site, tmp_path):
    folder, parts = site
    md5 = make_archive(folder, "less.tar", "2007", "trainval", ["a", "b"], missing=["b"])
    url = parts[0].url.replace("trainval07", "less")
    with pytest.raises(UserError, match="lacks 1 of JPEGImages: b"):
        fetch(tmp_path / "input", [Archive(url, "less.tar", md5, "trainval", "train")])


def test_official_archives():
    parts = official_archives(["2007", "2012"])
    assert [(part.listed, part.split) for part in parts] == [
        ("trainval", "train"),
        ("trainval", "train"),
        ("test", "valid"),
    ]
    assert all(len(part.md5) == 32 and part.url.endswith(part.filename) for part in parts)
    mirror = official_archives(["2012"], "http://mirror/voc/")
    assert [part.url for part in mirror] == ["http://mirror/voc/VOCtrainval_11-May-2012.tar"]
