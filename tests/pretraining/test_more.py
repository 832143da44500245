"""Memory said beforehand, a kept batch replayed, several processes."""

from __future__ import annotations

import csv

import pytest
import torch

from src.core import cli
from src.core.errors import UserError
from src.engine.checkpoint import load_checkpoint
from src.pretraining.__main__ import main
from src.pretraining.build import build_self_distillation
from src.pretraining.memory import estimate, kept_bytes, tiny_step
from src.pretraining.replay import replay
from src.pretraining.settings import ReplayOptions
from src.pretraining.train import train
from tests.conftest import PROJECT
from tests.pretraining.small import flags, options
from tests.pretraining.test_two_processes import torchrun


def test_kept_bytes_of_what_is_known():
    x = torch.randn(4, 256)
    weight = torch.nn.Parameter(torch.randn(256, 256))
    assert kept_bytes(lambda: (x @ weight).relu()) == 2 * 4 * 256 * 4  # x, and relu's result


def test_memory_grows_with_the_batch(textures, tmp_path):
    chosen = options(textures, tmp_path)
    model = build_self_distillation(chosen)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    need = [estimate(model, tiny_step(model, chosen, 2), 2, n, low=False) for n in (2, 64, 128)]
    assert need[0] < need[1] < need[2]
    assert need[2] - need[1] == pytest.approx((need[1] - need[0]) * 64 / 62, rel=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_bad_batch_is_kept_and_replayed(textures, tmp_path, monkeypatch):
    from src.pretraining import model as models

    plain = models.SelfDistillation.forward

    def poisoned(self, *crops):
        terms = plain(self, *crops)
        if self.training:
            terms["koleo"] = terms["koleo"] * float("nan")
        return terms

    monkeypatch.setattr(models.SelfDistillation, "forward", poisoned)
    with pytest.raises(UserError, match="3 steps in a row were not finite .loss koleo"):
        train(options(textures, tmp_path, "--epoch-steps", "4"))
    files = ["--model", str(tmp_path / "last_model.pth")]
    files += ["--bad-batch", str(tmp_path / "bad_batch_0.pth")]
    terms = replay(cli.parse(ReplayOptions, files))
    assert set(terms) == {"dino_global", "dino_local", "koleo", "ibot"}
    assert all(value == value for value in terms.values())


def test_export_command(textures, tmp_path):
    train(options(textures, tmp_path, "--epochs", "1", "--epoch-steps", "1"))
    out = tmp_path / "student.pth"
    words = ["export", "--model", str(tmp_path / "last_model.pth"), "--out", str(out)]
    with pytest.raises(SystemExit) as done:
        main([*words, "--part", "student"])
    assert not done.value.code
    assert "mask_token" in torch.load(out, weights_only=True)
    assert "part: student" in out.with_suffix(".yaml").read_text()


def losses(folder):
    with (folder / "history.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_train_alike(textures, tmp_path, strategy):
    """Finite, the same weights on both, whole teacher and heads in the checkpoint, resumable."""
    words = flags(textures, tmp_path, "--strategy", strategy, "--koleo-everywhere", "--gram", "1")
    done = torchrun(str(PROJECT / "train_ssl.py"), *words)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rows = losses(tmp_path)
    assert len(rows) == 2 and all(row["loss"] == row["loss"] for row in rows)
    content = load_checkpoint(tmp_path / "last_model.pth")
    alone = build_self_distillation(options(textures, tmp_path, "--gram", "1")).state_dict()
    shapes = {name: value.shape for name, value in alone.items()}
    assert {name: value.shape for name, value in content["model"].items()} == shapes
    weights = content["model"]
    head = "dino_head.mlp.0.weight"
    assert not torch.equal(weights[f"teacher.{head}"], weights[f"student.{head}"])
    more = [*words, "--resume", "--epochs", "3"]
    done = torchrun(str(PROJECT / "train_ssl.py"), *more)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert len(losses(tmp_path)) == 3
