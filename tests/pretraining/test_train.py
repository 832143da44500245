"""The training command: a run, its files, resumption, watching, and what it refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import torch
import yaml

from src.backbones.build import build_backbone
from src.core.errors import UserError
from src.engine.checkpoint import load_checkpoint
from src.pretraining.train import PretrainingTask, train
from src.pretraining.watch import advice, rank_me
from tests.conftest import PROJECT
from tests.pretraining.small import flags, options


@pytest.fixture(scope="module")
def run(textures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    chosen = options(textures, folder, "--probe", str(textures), "--save-samples", "--gram", "1")
    return folder, train(chosen)


def test_a_run_writes_what_it_says(run):
    folder, history = run
    names = {path.name for path in folder.iterdir()}
    assert {"backbone.pth", "backbone.yaml", "last_model.pth", "history.csv"} <= names
    assert {"samples.png", "pca_strip.png", "loss.png", "targets.png"} <= names
    row = history.last
    terms = {"loss_dino_global", "loss_dino_local", "loss_koleo", "loss_ibot", "loss_gram"}
    watched = {"target_entropy", "target_kl", "rankme", "mean_cosine", "centre_norm"}
    assert terms | watched | {"used_prototypes", "knn", "linear", "raw_dino_global"} <= set(row)
    assert row["target_kl"] == pytest.approx(
        row["raw_dino_global"] - row["target_entropy"], abs=1e-5
    )
    card = yaml.safe_load((folder / "backbone.yaml").read_text())
    assert card["backbone"] == "dinov3_vitt16" and card["steps"] == 4
    assert card["data"]["images"] == 24 and card["start"] == "none"


def test_the_file_is_the_teacher_and_any_command_loads_it(run):
    folder, _ = run
    backbone = build_backbone("dinov3_vitt16", weights=folder / "backbone.pth", hub="bundled")
    kept = load_checkpoint(folder / "last_model.pth")["model"]
    for name, value in backbone.hub_model.state_dict().items():
        assert torch.equal(value, kept[f"teacher.backbone.hub_model.{name}"]), name
    moved = [n for n in kept if n.startswith("student.") and n.endswith("weight")]
    assert any(not torch.equal(kept[n], kept[n.replace("student.", "teacher.", 1)]) for n in moved)


def test_killed_and_resumed_is_as_if_never_killed(run, textures, tmp_path):
    """kill -9 within the second epoch; losses and weights are those of the run without."""
    expected, history = run
    code = (
        "import os, signal, sys\n"
        "from src.pretraining import model\n"
        "from src.pretraining.train import main\n"
        "seen = []\n"
        "plain = model.SelfDistillation.update_teacher\n"
        "def update(self, momentum):\n"
        "    plain(self, momentum)\n"
        "    seen.append(1)\n"
        "    if len(seen) == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "model.SelfDistillation.update_teacher = update\n"
        "main(sys.argv[1:])\n"
    )
    words = flags(textures, tmp_path / "run", "--gram", "1")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=PROJECT, env=environment, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL
    assert load_checkpoint(tmp_path / "run" / "last_model.pth")["epoch"] == 1
    resumed = train(options(textures, tmp_path / "run", "--gram", "1", "--resume"))
    for name in ("loss", "loss_ibot", "loss_gram"):
        assert resumed.column(name)[1] == pytest.approx(history.column(name)[1], rel=1e-6)
    ours = load_checkpoint(tmp_path / "run" / "last_model.pth")["model"]
    theirs = load_checkpoint(expected / "last_model.pth")["model"]
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-7, msg=name)


def test_heads_are_trained_first_and_the_anchor_stays(textures, tmp_path):
    """Weights alone choose the preset that does not destroy them."""
    torch.manual_seed(0)
    start = build_backbone("dinov3_vitt16", weights="none", hub="bundled").hub_model
    file = tmp_path / "start.pth"
    torch.save(start.official_state(), file)
    chosen = options(textures, tmp_path / "run", "--weights", str(file), "--epochs", "1")
    assert (chosen.gram, chosen.head_epochs, chosen.drop_path) == (1.0, 1.0, 0.0)
    assert chosen.weight_decay == chosen.weight_decay_end
    train(chosen)
    kept = load_checkpoint(tmp_path / "run" / "last_model.pth")["model"]
    for name, value in start.state_dict().items():
        for part in ("student.backbone", "teacher.backbone", "anchor"):
            found = kept[f"{part}.hub_model.{name}"]
            torch.testing.assert_close(found, value, rtol=1e-6, atol=1e-8, msg=f"{part} {name}")
    head = "dino_head.mlp.0.weight"
    assert not torch.equal(kept[f"student.{head}"], kept[f"teacher.{head}"])


def test_convnext_learns_without_ibot(textures, tmp_path):
    words = ["--model-name", "dinov3_convnext_atto", "--epochs", "1", "--epoch-steps", "1"]
    words += ["--local-size", "32", "--global-size", "64", "--gram", "1", "--head-epochs", "0"]
    words += ["--warmup-epochs", "0"]
    with pytest.raises(UserError, match="iBOT masks patches .* --ibot 0"):
        train(options(textures, tmp_path / "a", *words))
    history = train(options(textures, tmp_path / "b", *words, "--ibot", "0"))
    assert "loss_gram" in history.last and "loss_ibot" not in history.last


@pytest.mark.parametrize(
    "words, message",
    [
        (["--global-size", "40"], "--global-size 40 is no multiple of 16"),
        (["--batch", "1"], "KoLeo compares images"),
        (["--batch", "99"], "24 images and --batch 99"),
        (["--gram-size", "64"], "--gram-size has no effect without --gram"),
        (["--head-epochs", "9"], "nothing would be trained"),
        (["--student", "timm/resnet18"], "give --teacher"),
        (["--teacher", "dinov3_vitt16", "--distill", "heads"], "has no heads"),
    ],
)
def test_contradictions_are_told(textures, tmp_path, words, message):
    with pytest.raises(UserError, match=message):
        train(options(textures, tmp_path, *words))


def test_options_without_effect_are_refused(textures, tmp_path):
    with pytest.raises(UserError, match="--ema: the teacher is the average"):
        options(textures, tmp_path, "--ema", "0.99")
    with pytest.raises(UserError, match="no images: give --images"):
        task = PretrainingTask(options(textures, tmp_path))
        task.options = task.options.model_copy(update={"images": None, "dataset": None})
        task.source()


def test_collapse_is_told():
    row = {"mean_cosine": 0.999, "rankme": 1.5, "raw_dino_global": 2.0, "used_prototypes": 0.5}
    assert "collapse" in advice(row, 32, 192)[0] and "--koleo" in advice(row, 32, 192)[0]
    stuck = {"mean_cosine": 0.3, "rankme": 90.0, "raw_dino_global": 3.4657}
    assert "ln K" in advice(stuck, 32, 192)[0]
    one = {"mean_cosine": 0.3, "rankme": 90.0, "raw_dino_global": 2.0, "used_prototypes": 1 / 32}
    assert "same prototype" in advice(one, 32, 192)[0]
    good = {"mean_cosine": 0.3, "rankme": 90.0, "raw_dino_global": 2.0, "used_prototypes": 0.9}
    assert advice(good, 32, 192) == []


def test_rank_me():
    assert rank_me(torch.randn(500, 1) @ torch.randn(1, 16)) == pytest.approx(1, abs=0.05)
    assert rank_me(torch.randn(5000, 16)) > 15


def test_help_is_quick_and_complete():
    code = (
        "import sys; sys.argv = ['train_ssl.py', '--help']\n"
        "import runpy\n"
        "try: runpy.run_path('train_ssl.py', run_name='__main__')\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        "assert not {'torch', 'numpy', 'cv2'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--probe" in done.stdout
