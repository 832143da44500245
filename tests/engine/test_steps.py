"""What a job may do at each optimizer step: hooks, clipping by part, steps that are not finite."""

from __future__ import annotations

import pytest
import torch

from src.core.errors import UserError
from src.engine.checkpoint import load_checkpoint
from src.engine.loop import fit
from src.engine.optim import ParameterGroup
from tests.engine.toy_job import toy_job


class Notes:
    """A StepHook that halves the rate at each step and writes down what it is told."""

    def __init__(self) -> None:
        self.before_steps: list[int] = []
        self.after_steps: list[int] = []
        self.rates: list[float] = []

    def before(self, step, optimizer) -> None:
        self.before_steps.append(step)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * 0.5**step
        self.rates.append(optimizer.param_groups[0]["lr"])

    def after(self, step) -> None:
        self.after_steps.append(step)


def test_hooks_are_told_of_every_step_and_set_the_rate(tmp_path):
    job = toy_job(tmp_path, {"epochs": 2, "accumulate": 2, "lr": 0.1})
    notes = Notes()
    job.step_hooks = [notes]
    history = fit(job)
    steps = 2 * -(-len(job.train_loader) // 2)
    assert notes.before_steps == notes.after_steps == list(range(steps))
    rate = history.last.get("lr", history.last.get("lr_backbone"))
    assert rate == pytest.approx(notes.rates[-1])


def test_parts_are_clipped_apart(tmp_path, monkeypatch):
    job = toy_job(tmp_path, {"epochs": 1, "clip": 1e-3, "optimizer": "SGD", "lr": 1.0})
    named = [name for name, p in job.model.named_parameters() if p.requires_grad]
    half = len(named) // 2
    job.parameter_groups = [
        ParameterGroup("one", tuple(named[:half]), 1.0, 0.0),
        ParameterGroup("two", tuple(named[half:-1]), 1.0, 0.0),
        ParameterGroup("two.last", tuple(named[-1:]), 1.0, 0.0),
    ]
    job.clip_apart = True
    norms = []
    plain = torch.optim.SGD.step

    def step(self, *args, **kwargs):
        parts = {}
        for group in self.param_groups:
            parts.setdefault(group["label"].partition(".")[0], []).extend(group["params"])
        for label, parameters in parts.items():
            squares = [p.grad.square().sum() for p in parameters if p.grad is not None]
            norms.append((label, float(torch.stack(squares).sum().sqrt())))
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    fit(job)
    assert {label for label, _ in norms} == {"one", "two"}
    for _, norm in norms:
        assert norm == pytest.approx(1e-3, rel=1e-2)


def poisoned(job, batches: set[int]):
    """Make the loss of these batches (counted over the run) NaN."""
    plain, count = job.loss, iter(range(10_000))

    def loss(model, batch):
        terms = plain(model, batch)
        if next(count) in batches:
            terms = {name: value * float("nan") for name, value in terms.items()}
        return terms

    job.loss = loss
    return job


def test_a_bad_step_is_left_out(tmp_path, caplog):
    job = poisoned(toy_job(tmp_path, {"epochs": 1}), {1, 2})
    job.guarded, notes = True, Notes()
    job.step_hooks = [notes]
    history = fit(job)
    assert notes.after_steps == [s for s in notes.before_steps if s not in (1, 2)]
    assert history.last["loss"] == history.last["loss"]
    assert caplog.text.count("step left out") == 2
    assert all(torch.isfinite(p).all() for p in job.model.parameters())


def test_a_gradient_that_is_not_finite_is_left_out(tmp_path):
    job = toy_job(tmp_path, {"epochs": 1, "clip": 1.0})
    plain, count = job.loss, iter(range(10_000))

    def loss(model, batch):
        terms = plain(model, batch)
        if next(count) == 0:  # finite itself, its gradient is not
            one = next(p for p in model.parameters() if p.requires_grad)
            terms["odd"] = (one - one.detach()).abs().sum().sqrt()
        else:
            terms["odd"] = torch.zeros(())
        return terms

    job.loss, job.guarded, notes = loss, True, Notes()
    job.step_hooks = [notes]
    fit(job)
    assert notes.after_steps[0] == 1
    assert all(torch.isfinite(p).all() for p in job.model.parameters())


def test_three_bad_steps_in_a_row_end_the_run_with_the_batch_kept(tmp_path):
    job = poisoned(toy_job(tmp_path, {"epochs": 2}), {2, 3, 4})
    job.guarded = True
    with pytest.raises(UserError, match="3 steps in a row were not finite .*bad_batch_0.pth"):
        fit(job)
    kept = torch.load(tmp_path / "bad_batch_0.pth", weights_only=True)
    assert (kept["epoch"], kept["batch"]) == (0, 4) and "images" in kept["fields"]
    content = load_checkpoint(tmp_path / "last_model.pth")
    assert all(torch.isfinite(value).all() for value in content["model"].values())
    assert content["training"]["position"] == 5 and content["training"]["left_out"] == 3
    resumed = toy_job(tmp_path, {"epochs": 2, "resume": True})
    assert len(fit(resumed).rows) == 2
