"""Fetching VOC, from a small archive on loopback with its own checksum."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import pytest

from src.core.config import load_yaml, validate
from src.core.errors import UserError
from src.data.boxes.reader import read_split
from src.data.boxes.settings import BoxDataset
from src.data.fetch_voc import Archive, download, fetch, official_archives
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


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Ranges(BaseHTTPRequestHandler):
    """Serves ``content``, with Range; breaks off the first answer half way."""

    content = bytes(range(256)) * 400
    asked: list = []

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start >= len(self.content):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        stop = len(self.content) // 2 if len(self.asked) == 1 else len(self.content)
        self.wfile.write(self.content[start:stop])

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(handler) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


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


def test_download_goes_on_where_it_was_cut(serve, tmp_path):
    Ranges.asked = []
    url = serve(Ranges)
    md5 = hashlib.md5(Ranges.content).hexdigest()
    download(f"{url}/file", tmp_path / "file", md5)
    assert (tmp_path / "file").read_bytes() == Ranges.content
    assert Ranges.asked == [None, f"bytes={len(Ranges.content) // 2}-"]
    download(f"{url}/file", tmp_path / "file", md5)  # there already
    assert len(Ranges.asked) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_complete_partial_file_is_recognised(serve, tmp_path):
    Ranges.asked = ["not the first"]
    url = serve(Ranges)
    (tmp_path / "file.part").write_bytes(Ranges.content)
    download(f"{url}/file", tmp_path / "file", hashlib.md5(Ranges.content).hexdigest())
    assert (tmp_path / "file").read_bytes() == Ranges.content


def test_unreachable(site, tmp_path, serve):
    _, parts = site
    with pytest.raises(UserError, match=r"cannot download .*404.*--base-url"):
        download(parts[0].url + "x", tmp_path / "file", "0")
    with pytest.raises(UserError, match=r"cannot download .*"):
        download("http://127.0.0.1:9/file", tmp_path / "file", "0")
    with pytest.raises(UserError, match="unknown url type.*--base-url"):
        download("no/address", tmp_path / "file", "0")


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
