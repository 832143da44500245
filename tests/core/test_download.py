"""Downloads from a server on loopback: cut off, complete, wrong, unreachable."""

from __future__ import annotations

import hashlib
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler

import pytest

from src.core.download import download
from src.core.errors import UserError


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


def test_download_goes_on_where_it_was_cut(serve, tmp_path):
    Ranges.asked = []
    url = serve(Ranges)
    md5 = f"md5:{hashlib.md5(Ranges.content).hexdigest()}"
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
    checksum = f"sha256:{hashlib.sha256(Ranges.content).hexdigest()}"
    download(f"{url}/file", tmp_path / "file", checksum)
    assert (tmp_path / "file").read_bytes() == Ranges.content


def test_unreachable(tmp_path, serve):
    url = serve(partial(Quiet, directory=str(tmp_path)))
    with pytest.raises(UserError, match=r"cannot download .*404.*; another place"):
        download(f"{url}/x", tmp_path / "file", "md5:0", "another place")
    with pytest.raises(UserError, match=r"cannot download .*"):
        download("http://127.0.0.1:9/file", tmp_path / "file", "md5:0")
    with pytest.raises(UserError, match="unknown url type.*another place"):
        download("no/address", tmp_path / "file", hint="another place")


def test_without_a_checksum_the_length_decides(serve, tmp_path):
    Ranges.asked = []
    url = serve(Ranges)
    download(f"{url}/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == Ranges.content
    assert len(Ranges.asked) == 2  # the first answer broke off


def test_another_content_is_refused(serve, tmp_path):
    Ranges.asked = ["not the first"]
    url = serve(Ranges)
    with pytest.raises(UserError, match="the checksum is wrong"):
        download(f"{url}/file", tmp_path / "file", "sha256:" + 64 * "0")
    assert not (tmp_path / "file").exists()
