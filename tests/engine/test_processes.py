"""Real processes: kill -9 and --resume, Ctrl-C, torchrun with DDP and with FSDP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from src.engine.checkpoint import load_checkpoint
from src.engine.loop import fit
from tests.engine.toy_job import toy_job

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv-backend=c10d"]
TORCHRUN += ["--rdzv-endpoint=localhost:0"]


def run(folder: Path, options: dict, *prefix: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *prefix, "-m", "tests.engine.toy_job", str(folder)]
    return subprocess.run(
        [*command, json.dumps(options)],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def assert_same_run(folder: Path, expected, rel: float = 0.0) -> None:
    content = load_checkpoint(folder / "last_model.pth")
    rows = content["training"]["history"]["rows"]
    assert len(rows) == len(expected.rows)
    for name in ("loss", "loss_class", "loss_size", "accuracy", "samples"):
        found = [row[name] for row in rows]
        assert found == pytest.approx(expected.column(name)[1], rel=rel, abs=0), name


def test_killed_twice_and_resumed_is_as_if_never_killed(tmp_path):
    options = {"epochs": 4, "ema": 0.9, "schedule": "cosine", "toy": {"dropout": 0.2}}
    expected = fit(toy_job(tmp_path / "straight", options))
    folder = tmp_path / "killed"

    middle = {**options, "toy": {"dropout": 0.2, "kill_at": [1, 3]}}
    assert run(folder, middle).returncode == -signal.SIGKILL
    assert load_checkpoint(folder / "last_model.pth")["epoch"] == 1

    # Epoch 2 saves its best and its last; death comes while the latter is being written.
    writing = {**options, "resume": True, "toy": {"dropout": 0.2, "kill_in_save": 2}}
    assert run(folder, writing).returncode == -signal.SIGKILL
    assert list(folder.glob(".*.tmp*")), "the kill did not come within a write"
    assert load_checkpoint(folder / "last_model.pth")["epoch"] in (1, 2)

    last = run(folder, {**options, "resume": True})
    assert last.returncode == 0, last.stdout + last.stderr
    assert not list(folder.glob(".*.tmp*"))
    assert_same_run(folder, expected)
    assert load_checkpoint(folder / "best_model.pth")["epoch"] == expected.best_epoch


def test_a_held_backbone_killed_on_both_sides_of_its_beginning(tmp_path):
    toy = {"fine_tune": True, "hold": 2}
    options = {"epochs": 4, "warmup_epochs": 1, "toy": toy}
    expected = fit(toy_job(tmp_path / "straight", options))
    folder = tmp_path / "killed"
    for resume, batch in ((False, [1, 2]), (True, [2, 2])):  # while it is held, and afterwards
        killed = {**options, "resume": resume, "toy": {**toy, "kill_at": batch}}
        assert run(folder, killed).returncode == -signal.SIGKILL
    assert load_checkpoint(folder / "last_model.pth")["epoch"] == 3
    last = run(folder, {**options, "resume": True})
    assert last.returncode == 0, last.stdout + last.stderr
    assert_same_run(folder, expected)


def test_ctrl_c_saves_and_goes_on_from_the_same_step(tmp_path):
    options = {"epochs": 2, "toy": {"dropout": 0.2}}
    expected = fit(toy_job(tmp_path / "straight", options))
    folder = tmp_path / "stopped"
    slow = {**options, "toy": {"dropout": 0.2, "delay": 0.7}}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.engine.toy_job", str(folder), json.dumps(slow)],
        cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (folder / "config.yaml").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert "--resume" in out and "Traceback" not in err
    training = load_checkpoint(folder / "last_model.pth")["training"]
    assert training["epoch"] == 0 and 0 < training["position"] < 6
    fit(toy_job(folder, {**options, "resume": True}))
    assert_same_run(folder, expected)


def test_two_processes_train_the_same_model(tmp_path):
    options = {"epochs": 3, "ema": 0.9, "accumulate": 2, "clip": 1.0, "toy": {"positives": True}}
    expected = fit(toy_job(tmp_path / "one", options))
    two = run(tmp_path / "two", options, *TORCHRUN)
    assert two.returncode == 0, two.stdout + two.stderr
    assert_same_run(tmp_path / "two", expected, rel=1e-4)
    a = load_checkpoint(tmp_path / "one" / "last_model.pth")["model"]
    b = load_checkpoint(tmp_path / "two" / "last_model.pth")["model"]
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-5)


def test_two_processes_let_a_backbone_go_together(tmp_path):
    options = {"epochs": 3, "strategy": "ddp", "toy": {"fine_tune": True, "hold": 1}}
    alone = fit(toy_job(tmp_path / "alone", {**options, "strategy": "auto"}))
    both = run(tmp_path / "both", options, *TORCHRUN)
    assert both.returncode == 0, both.stdout + both.stderr
    assert_same_run(tmp_path / "both", alone, rel=1e-4)


def test_sharded_run_is_the_same_and_resumes_unsharded(tmp_path):
    """Validated in shards: averaged weights in one epoch, and the trained ones are whole again in
    the next."""
    options = {"epochs": 3, "ema": 0.9, "clip": 1.0, "toy": {"fine_tune": True}}
    expected = fit(toy_job(tmp_path / "one", options))
    sharded = {**options, "epochs": 2, "strategy": "fsdp"}
    two = run(tmp_path / "two", sharded, *TORCHRUN)
    assert two.returncode == 0, two.stdout + two.stderr
    assert "sharded parameters: 12" in two.stdout
    fit(toy_job(tmp_path / "two", {**options, "resume": True}))
    assert_same_run(tmp_path / "two", expected, rel=1e-3)
