"""Checkpoint files: what they hold, what is refused and in which words."""

from __future__ import annotations

import resource
import shutil

import numpy as np
import pytest
import torch

from src.core.errors import UserError
from src.engine.checkpoint import fingerprint, load_checkpoint, load_weights, plain, save_checkpoint
from tests.engine.toy_job import ToyModel

DESCRIBE = {
    "task": "toy",
    "head": "linear",
    "backbone": {"name": "toy"},
    "image_size": (8, 1),
    "resize": "fit",
    "classes": ("__background__", "a"),
    "config": {"lr": np.float32(0.5), "path": shutil},
}


def save(path, model, **more):
    save_checkpoint(path, model.state_dict(), DESCRIBE, epoch=3, metrics={"map": 0.5}, **more)


def test_round_trip(tmp_path):
    model, other = ToyModel(), ToyModel()
    save(tmp_path / "a.pth", model)
    content = load_checkpoint(tmp_path / "a.pth", "toy")
    assert content["classes"] == ["__background__", "a"] and content["config"]["lr"] == 0.5
    load_weights(other, content, "a.pth")
    for name, value in other.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


def test_head_alone_goes_with_its_backbone_only(tmp_path):
    model = ToyModel()
    save(tmp_path / "head.pth", model, backbone_fingerprint=fingerprint(model.backbone))
    content = load_checkpoint(tmp_path / "head.pth")
    assert not [name for name in content["model"] if name.startswith("backbone.")]
    same = ToyModel()
    same.backbone.load_state_dict(model.backbone.state_dict())
    load_weights(same, content, "head.pth")
    assert torch.equal(same.out.weight, model.out.weight)
    with pytest.raises(UserError, match="fingerprint"):
        load_weights(ToyModel(), content, "head.pth")


@pytest.mark.parametrize(
    "content, words",
    [
        ({"model_state_dict": {}, "epoch": 1}, "tutorial"),
        ({"blocks.0.attn.qkv.weight": torch.zeros(2)}, "backbone weight file"),
        ({"weight": torch.zeros(2)}, "bare state dict"),
        ({"model": 1, "optimizer": 2}, "keys model, optimizer"),
        ([1, 2], "a saved list"),
        ({"format": 99, "model": {}}, "update"),
        ({"format": 1, "model": {}}, "damaged"),
    ],
)
def test_other_files_are_named(tmp_path, content, words):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match=words):
        load_checkpoint(tmp_path / "x.pth")


def test_broken_absent_and_foreign_files(tmp_path):
    save(tmp_path / "good.pth", ToyModel())
    whole = (tmp_path / "good.pth").read_bytes()
    for name, content in {"half": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}.items():
        (tmp_path / f"{name}.pth").write_bytes(content)
        with pytest.raises(UserError, match=name) as error:
            load_checkpoint(tmp_path / f"{name}.pth")
        assert "weights_only" not in str(error.value)  # of torch's own, long words
    with pytest.raises(UserError, match=r"no such checkpoint.*good\.pth"):
        load_checkpoint(tmp_path / "goood.pth")
    torch.save(ToyModel(), tmp_path / "object.pth")
    with pytest.raises(UserError, match="Python objects"):
        load_checkpoint(tmp_path / "object.pth")
    with pytest.raises(UserError, match="checkpoint of toy, and this is detection"):
        load_checkpoint(tmp_path / "good.pth", "detection")


def test_weights_of_another_model_are_refused(tmp_path):
    save(tmp_path / "a.pth", ToyModel())
    other = ToyModel()
    other.out = torch.nn.Linear(16, 5)
    with pytest.raises(UserError, match=r"out.weight has the shape \[2, 16\] instead of \[5, 16\]"):
        load_weights(other, load_checkpoint(tmp_path / "a.pth"), "a.pth")


def test_no_room_leaves_the_old_file(tmp_path):
    save(tmp_path / "a.pth", ToyModel())
    before = (tmp_path / "a.pth").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(UserError, match="cannot write"):
            save(tmp_path / "a.pth", torch.nn.Linear(100, 100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "a.pth").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_what_else_goes_wrong_while_writing_is_not_the_disk(tmp_path, monkeypatch):
    """PyTorch's signal handler raises wherever the process is when a data worker dies."""

    def killed(*_):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(RuntimeError, match="worker .* is killed"):
        save(tmp_path / "a.pth", torch.nn.Linear(2, 2))
    assert not list(tmp_path.iterdir())


def test_plain_values():
    found = plain({"a": (1, np.int64(2)), 3: {4.5}, "t": torch.zeros(1), "n": None})
    assert found["a"] == [1, 2] and found[3] == [4.5] and found["n"] is None
    assert isinstance(found["t"], torch.Tensor) and type(found["a"][1]) is int


def test_overwritten_weights_are_told(tmp_path):
    path = tmp_path / "a.pth"
    save(path, torch.nn.Linear(100, 100))
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes(4096) + content[middle + 4096 :])
    with pytest.raises(UserError, match="a.pth is damaged: .*checksum differs"):
        load_checkpoint(path)
    about = load_checkpoint(path, weights=False)  # the weights are not looked at
    assert about["model"]["weight"].shape == (100, 100) and about["format"] == 1


@pytest.mark.parametrize("field", ["head", "backbone", "resize", "classes", "config"])
def test_fields_of_another_kind_are_told(tmp_path, field):
    save(tmp_path / "a.pth", ToyModel())
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    torch.save({**content, field: 3}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=f"a.pth is damaged: its {field} is of type int"):
        load_checkpoint(tmp_path / "a.pth")
