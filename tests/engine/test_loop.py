"""The loop, in this process: accumulation, averages, refusals, files."""

from __future__ import annotations

import csv
import os
import random
import signal
import time

import pytest
import torch

from src.core.errors import UserError
from src.engine.checkpoint import load_checkpoint
from src.engine.hold import Hold
from src.engine.loop import fit
from src.engine.settings import TrainingOptions
from tests.engine.toy_job import toy_job


def losses(history) -> list[float]:
    return history.column("loss")[1]


def test_files_of_a_run(tmp_path):
    seen = []
    job = toy_job(tmp_path, {"epochs": 2})
    job.hooks.append(lambda history: seen.append(history.last["epoch"]))
    history = fit(job)
    assert seen == [1, 2]
    assert history.last["samples"] == 48
    for name in ("best_model.pth", "last_model.pth", "config.yaml", "history.csv"):
        assert (tmp_path / name).is_file()
    assert list((tmp_path / "tensorboard").glob("events*"))
    with open(tmp_path / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"loss", "loss_class", "loss_size", "lr", "images_per_second", "accuracy"} <= set(
        rows[0]
    )
    best = load_checkpoint(tmp_path / "best_model.pth", "toy")
    assert "training" not in best and best["metrics"]["accuracy"] == history.best_value
    assert best["epoch"] == history.best_epoch


def test_frozen_backbone_stays(tmp_path):
    job = toy_job(tmp_path, {"epochs": 1})
    before = {n: t.clone() for n, t in job.model.state_dict().items()}
    fit(job)
    for name, value in job.model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("backbone.")


def test_two_halves_accumulated_are_the_whole(tmp_path):
    whole = fit(toy_job(tmp_path / "whole", {"epochs": 3, "batch": 8, "clip": 0.5}))
    halves = fit(
        toy_job(tmp_path / "halves", {"epochs": 3, "batch": 4, "accumulate": 2, "clip": 0.5})
    )
    assert losses(halves) == pytest.approx(losses(whole), rel=1e-4)
    other = fit(toy_job(tmp_path / "other", {"epochs": 3, "batch": 4, "clip": 0.5}))
    assert losses(other) != pytest.approx(losses(whole), rel=1e-4)


def test_leftover_of_accumulation_is_stepped(tmp_path):
    job = toy_job(tmp_path, {"epochs": 1, "batch": 8, "accumulate": 4})  # 6 batches: 4 + 2
    steps = []
    step = torch.optim.AdamW.step
    job.hooks.append(lambda history: steps.append(None))
    try:
        torch.optim.AdamW.step = lambda self, *a, **k: (steps.append(1), step(self, *a, **k))[1]
        fit(job)
    finally:
        torch.optim.AdamW.step = step
    assert steps.count(1) == 2


def test_average_is_what_is_validated_and_saved(tmp_path):
    plain = toy_job(tmp_path / "plain", {"epochs": 1})
    fit(plain)
    averaged = toy_job(tmp_path / "ema", {"epochs": 1, "ema": 0.9})
    inside = {}
    validate = averaged.validate
    averaged.validate = lambda model: (
        inside.update({n: t.clone() for n, t in model.state_dict().items()}),
        validate(model),
    )[1]
    fit(averaged)
    # The trained weights are those of a run without the average; the validated ones are not.
    trained = plain.model.state_dict()["out.weight"]
    assert torch.equal(averaged.model.state_dict()["out.weight"], trained)
    assert not torch.equal(inside["out.weight"], trained)
    best = load_checkpoint(tmp_path / "ema" / "best_model.pth")
    assert torch.equal(best["model"]["out.weight"], inside["out.weight"])
    last = load_checkpoint(tmp_path / "ema" / "last_model.pth")
    assert torch.equal(last["model"]["out.weight"], trained)


def test_average_by_hand():
    from src.engine.ema import MovingAverage

    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 1.0)
    average = MovingAverage(model, 0.5)
    torch.nn.init.constant_(model.weight, 3.0)
    average.update(0)  # decay min(0.5, 1 / 10)
    average.update(100)  # decay 0.5
    expected = 0.5 * (0.1 * 1 + 0.9 * 3) + 0.5 * 3
    with average.swapped():
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 3.0


def test_second_run_is_refused(tmp_path):
    first = fit(toy_job(tmp_path, {"epochs": 1}))
    kept = (tmp_path / "last_model.pth").read_bytes()
    with pytest.raises(UserError, match="earlier run.*--resume.*--overwrite"):
        fit(toy_job(tmp_path, {"epochs": 2}))
    assert (tmp_path / "last_model.pth").read_bytes() == kept
    with pytest.raises(UserError, match="one of them"):
        fit(toy_job(tmp_path, {"epochs": 2, "resume": True, "overwrite": True}))
    again = fit(toy_job(tmp_path, {"epochs": 1, "overwrite": True}))
    assert losses(again) == losses(first)


def test_resume_of_nothing_begins(tmp_path):
    assert len(fit(toy_job(tmp_path, {"epochs": 1, "resume": True})).rows) == 1


def test_resume_of_another_run_is_refused(tmp_path):
    fit(toy_job(tmp_path, {"epochs": 1}))
    with pytest.raises(UserError, match="--tune, --imgsz"):
        fit(toy_job(tmp_path, {"epochs": 2, "resume": True, "toy": {"fine_tune": True}}))
    other = toy_job(tmp_path, {"epochs": 2, "resume": True})
    other.describe["classes"] = ["__background__", "b"]
    with pytest.raises(UserError, match="classes"):
        fit(other)


def test_resume_names_the_options_that_differ(tmp_path, caplog):
    def job(difficult: str, **options):
        made = toy_job(tmp_path, {"epochs": 1, **options})
        made.describe["config"] |= {"dataset": {"CLASSES": ["cat"], "DIFFICULT": difficult}}
        return made

    fit(job("train"))
    with caplog.at_level("INFO", "src.engine"):
        fit(job("skip", resume=True, lr=0.5))
    line = next(text for text in caplog.messages if "options that differ" in text)
    assert "-> 0.5" in line and "DIFFICULT train -> skip" in line and "CLASSES" not in line


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_more_epochs_later_are_the_same_losses(tmp_path, optimizer):
    options = {"optimizer": optimizer, "ema": 0.9, "toy": {"dropout": 0.2, "fine_tune": True}}
    straight = fit(toy_job(tmp_path / "straight", {"epochs": 3, **options}))
    fit(toy_job(tmp_path / "parts", {"epochs": 1, **options}))
    parts = fit(toy_job(tmp_path / "parts", {"epochs": 3, "resume": True, **options}))
    assert losses(parts) == losses(straight)
    assert parts.column("accuracy") == straight.column("accuracy")


def test_loss_that_is_not_finite_says_where(tmp_path):
    with pytest.raises(UserError, match="class, size at batch 3 of epoch 1.*--lr"):
        fit(toy_job(tmp_path, {"epochs": 1, "toy": {"poison": 2}}))
    assert not (tmp_path / "last_model.pth").exists()


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        fit(toy_job(tmp_path / "file" / "run", {"epochs": 1}))


def test_contradictions_are_refused(tmp_path):
    with pytest.raises(UserError, match="torchrun"):
        fit(toy_job(tmp_path, {"epochs": 1, "strategy": "fsdp"}))
    with pytest.raises(UserError, match="warmup"):
        fit(toy_job(tmp_path, {"epochs": 1, "warmup_epochs": 2}))
    with pytest.raises(UserError, match="--precision 16 needs a CUDA device"):
        fit(toy_job(tmp_path, {"epochs": 1, "device": "cpu", "precision": "16-mixed"}))


def test_bf16_and_rare_evaluation(tmp_path):
    job = toy_job(tmp_path, {"epochs": 3, "precision": "bf16-mixed"})
    job.eval_every = 2
    history = fit(job)
    assert history.column("accuracy")[0] == [2, 3]
    assert len(losses(history)) == 3


def test_without_validation_the_least_loss_is_best(tmp_path):
    job = toy_job(tmp_path, {"epochs": 3})
    job.validate = None
    history = fit(job)
    best = min(range(3), key=lambda i: losses(history)[i]) + 1
    assert history.best_epoch == best == load_checkpoint(tmp_path / "best_model.pth")["epoch"]


def test_ctrl_c_while_validating_validates_again(tmp_path):
    expected = fit(toy_job(tmp_path / "straight", {"epochs": 2, "ema": 0.9}))
    job = toy_job(tmp_path / "run", {"epochs": 2, "ema": 0.9})

    def interrupted(model):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)

    job.validate = interrupted
    with pytest.raises(KeyboardInterrupt):
        fit(job)
    assert load_checkpoint(tmp_path / "run" / "last_model.pth")["training"]["position"] == 6
    resumed = fit(toy_job(tmp_path / "run", {"epochs": 2, "ema": 0.9, "resume": True}))
    assert losses(resumed) == losses(expected)
    assert resumed.column("accuracy") == expected.column("accuracy")


def test_head_alone_is_saved_and_resumed(tmp_path):
    options = {"toy": {"head_only": True}}
    expected = fit(toy_job(tmp_path / "straight", {"epochs": 2, **options}))
    fit(toy_job(tmp_path / "run", {"epochs": 1, **options}))
    content = load_checkpoint(tmp_path / "run" / "best_model.pth")
    assert {name.split(".")[0] for name in content["model"]} == {"head", "out"}
    resumed = fit(toy_job(tmp_path / "run", {"epochs": 2, "resume": True, **options}))
    assert losses(resumed) == losses(expected)
    other = toy_job(tmp_path / "run", {"epochs": 3, "resume": True, **options})
    torch.nn.init.ones_(other.model.backbone.norm.bias)
    with pytest.raises(UserError, match="other backbone weights"):
        fit(other)


def test_what_all_processes_choose_alike(tmp_path, monkeypatch):
    drawn: dict[int, list] = {}
    for number in (0, 1):
        monkeypatch.setattr("src.engine.loop.rank", lambda number=number: number)
        job = toy_job(tmp_path / str(number), {"epochs": 2})
        seen, loss = drawn.setdefault(number, []), job.loss

        def noted(model, batch, seen=seen, loss=loss):
            seen.append((random.random(), float(torch.rand(()))))
            return loss(model, batch)

        job.loss = noted
        fit(job)
    alike, apart = zip(*[zip(*drawn[number]) for number in (0, 1)])
    assert alike[0] == alike[1] and len(set(alike[0])) == len(alike[0]) > 2
    assert not {*apart[0]} & {*apart[1]}


def test_metric_that_never_comes_still_leaves_a_model(tmp_path):
    job = toy_job(tmp_path, {"epochs": 2})
    job.validate = lambda model: {}
    history = fit(job)
    assert history.best_epoch is None
    assert load_checkpoint(tmp_path / "best_model.pth")["epoch"] == 2


def test_a_held_backbone_begins_in_its_epoch(tmp_path):
    options = {"epochs": 4, "backbone_lr": 0.02, "warmup_epochs": 0.5}
    toy = {"fine_tune": True, "hold": 2}
    untouched = toy_job(tmp_path / "untouched", {**options, "toy": toy}).model.backbone
    job = toy_job(tmp_path / "half", {**options, "toy": toy})
    job.hooks = [lambda history: seen.append(parts(job.model.backbone))]
    seen: list = []

    def parts(backbone):
        return torch.cat([value.detach().flatten() for value in backbone.parameters()])

    history = fit(job)
    assert torch.equal(seen[0], parts(untouched)) and torch.equal(seen[1], seen[0])
    assert not torch.equal(seen[2], seen[1]) and not torch.equal(seen[3], seen[2])
    rates = history.column("lr_backbone")[1]
    assert rates[:2] == [0, 0] and rates[2:] == [0.02, 0.02]
    state = load_checkpoint(tmp_path / "half" / "last_model.pth")["training"]["optimizer"]
    assert state["backbone.norm.weight"]["step"] * 2 == state["out.weight"]["step"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"epochs": 2}, "--unfreeze-epoch 3 must be one of the --epochs 2"),
        ({"epochs": 4, "strategy": "fsdp"}, "does not go with --strategy fsdp"),
    ],
)
def test_a_hold_that_cannot_be(tmp_path, options, word):
    model = toy_job(tmp_path, {"toy": {"fine_tune": True}}).model
    with pytest.raises(UserError, match=word):
        Hold(model, 2, TrainingOptions(out_dir=tmp_path, **options))
