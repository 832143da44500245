"""Published files from a server on loopback: checked, gone on with, told of where there is none."""

from __future__ import annotations

import hashlib
from http.server import BaseHTTPRequestHandler

import numpy as np
import pytest
import torch
from safetensors.torch import save

from src.core.errors import UserError
from src.models.__main__ import run, table
from src.models.catalogue import File, PublishedModel, on_hugging_face
from src.models.fetching import read, states_of
from src.models.opening import MODELS
from src.models.settings import ListModels

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3)}
CONTENT = save(WEIGHTS)


class Hub(BaseHTTPRequestHandler):
    """Tells a checksum before it sends one elsewhere, as the Hugging Face hub; the first answer
    there breaks off half way."""

    checksum = hashlib.sha256(CONTENT).hexdigest()
    asked: list = []

    def do_HEAD(self):
        self.send_response(302)
        self.send_header("Location", "/elsewhere")
        self.send_header("X-Linked-ETag", f'"{self.checksum}"')
        self.end_headers()

    def do_GET(self):
        if self.path != "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            return
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        self.asked.append(start)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        stop = len(CONTENT) // 2 if len(self.asked) == 1 else len(CONTENT)
        self.wfile.write(CONTENT[start:stop])

    def log_message(self, *_):
        pass


def row(url: str | None) -> PublishedModel:
    file = File("hub/x.safetensors", url, 1.0)
    return PublishedModel(
        "x", "detection", "dinov3_vits16", "ssd", (file,), "MIT", "https://x", lambda *_: {}
    )


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DINOv3_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(Hub, "asked", [])
    return tmp_path


def test_a_file_is_fetched_once_and_checked(serve, folder, caplog):
    caplog.set_level("INFO")
    model = row(f"{serve(Hub)}/x/resolve/main/model.safetensors")
    [state] = states_of(model)
    assert torch.equal(state["a.weight"], WEIGHTS["a.weight"])
    assert Hub.asked == [0, len(CONTENT) // 2]  # gone on with where it broke off
    assert "licence: MIT" in caplog.text and "its SHA-256 is right" in caplog.text
    states_of(model)
    assert len(Hub.asked) == 2
    assert [path.name for path in (folder / "hub").iterdir()] == ["x.safetensors"]


def test_another_content_than_the_hub_tells(serve, folder, monkeypatch):
    monkeypatch.setattr(Hub, "checksum", 64 * "0")
    with pytest.raises(UserError, match="the checksum is wrong"):
        states_of(row(f"{serve(Hub)}/x/resolve/main/model.safetensors"))
    assert not (folder / "hub" / "x.safetensors").exists()


def test_without_a_network_the_place_is_told(folder):
    with pytest.raises(UserError, match="fetch it on another machine and put it there as .*hub/x"):
        states_of(row("http://127.0.0.1:9/x"))
    with pytest.raises(UserError, match="needs the backbone's own weights as .*Meta sends"):
        states_of(row(None))


def test_files_of_trainings(tmp_path):
    inner = {"meta": {"best": np.float64(1)}, "state_dict": WEIGHTS}
    for content in ({"ema": {"module": WEIGHTS}, "model": {}}, inner, {"model": WEIGHTS}, WEIGHTS):
        torch.save(content, tmp_path / "x.pth")
        assert list(read(tmp_path / "x.pth")) == ["a.weight"]
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="holds no weights"):
        read(tmp_path / "x.pth")


def test_a_mirror(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    assert on_hugging_face("a/b", "c") == "https://mirror.example/a/b/resolve/main/c"


def test_the_table(capsys):
    run(ListModels(task="detection"))
    printed = capsys.readouterr().out
    assert "hub:deimv2_dinov3_s_coco" in printed and "COCO val2017 AP 50.9" in printed
    assert "nyu" not in printed and len(table().splitlines()) == 1 + len(list(MODELS))
    with pytest.raises(UserError, match="unknown published model"):
        run(ListModels(fetch=["deimv3"]))
