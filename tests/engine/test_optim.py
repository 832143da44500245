"""Groups, layer decay and schedules."""

from __future__ import annotations

import pytest
import torch

from src.detection.settings import TrainDetection
from src.engine.distributed import blocks_of
from src.engine.optim import Schedule, build_optimizer, parameter_groups, require_sensible
from src.engine.settings import TrainingOptions
from tests.engine.toy_job import ToyModel


def options(**values) -> TrainingOptions:
    return TrainingOptions(out_dir="x", device="cpu", **values)


def rates(schedule: Schedule, steps: int) -> list[float]:
    return [schedule.factor(step) for step in range(steps)]


def test_frozen_parameters_are_in_no_group():
    groups = parameter_groups(ToyModel(), options())
    assert {name.split(".")[0] for group in groups for name in group.names} == {"head", "out"}


def test_layer_decay_and_backbone_rate():
    model = ToyModel(fine_tune=True)
    groups = parameter_groups(model, options(lr=1e-3, backbone_lr=1e-4, layer_decay=0.5))
    rate = {name: group.lr for group in groups for name in group.names}
    decay = {name: group.weight_decay for group in groups for name in group.names}
    assert rate["out.weight"] == 1e-3
    assert rate["backbone.norm.weight"] == 1e-4
    assert rate["backbone.blocks.2.weight"] == pytest.approx(0.5e-4)
    assert rate["backbone.blocks.0.bias"] == pytest.approx(0.125e-4)
    assert decay["backbone.blocks.0.weight"] == 1e-2
    assert decay["backbone.blocks.0.bias"] == decay["backbone.norm.weight"] == 0
    assert set(rate) == {name for name, _ in model.named_parameters()}
    optimizer = build_optimizer(model, groups, options(lr=1e-3))
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(model.parameters()))


def test_multistep_with_warm_up():
    schedule = Schedule(options(epochs=4, scheduler_epochs=[2, 3], warmup_epochs=0.5), 4)
    assert rates(schedule, 3) == [0.5, 1.0, 1.0]
    assert rates(schedule, 16)[7:] == pytest.approx([1.0, *[0.1] * 4, *[0.01] * 4])


def test_cosine_ends_near_zero():
    factors = rates(Schedule(options(epochs=5, schedule="cosine", warmup_epochs=1), 10), 50)
    assert factors[9] == 1.0 and factors[10] == 1.0
    assert factors[30] == pytest.approx(0.5)
    assert factors[49] < 0.01
    assert all(a >= b for a, b in zip(factors[10:], factors[11:]))


def test_flat_cosine_is_flat_for_half():
    factors = rates(Schedule(options(epochs=4, schedule="flat-cosine"), 10), 40)
    assert factors[:21] == [1.0] * 21
    assert factors[30] == pytest.approx(0.5)


def test_schedule_sets_each_group():
    model = ToyModel(fine_tune=True)
    chosen = options(lr=1e-2, backbone_lr=1e-3, scheduler_epochs=[1])
    optimizer = build_optimizer(model, parameter_groups(model, chosen), chosen)
    Schedule(chosen, 5).before(5, optimizer)
    found = {group["label"]: group["lr"] for group in optimizer.param_groups}
    assert found == pytest.approx({"head": 1e-3, "backbone": 1e-4})


def test_blocks_to_shard():
    model = ToyModel()
    assert blocks_of(model) == list(model.backbone.blocks)
    stages = torch.nn.ModuleList(
        [torch.nn.Sequential(*[torch.nn.Linear(2, 2) for _ in range(3)]) for _ in range(2)]
    )
    holder = torch.nn.Module()
    holder.stages = stages
    assert blocks_of(holder) == [block for stage in stages for block in stage]


def test_options_without_effect_are_said(caplog):
    require_sensible(options(backbone_lr=1e-4, schedule="cosine", scheduler_epochs=[1000]))
    assert not caplog.messages  # a default, and a task whose backbone is its own affair
    frozen = TrainDetection(dataset=None, backbone_lr=1e-5, layer_decay=0.7)
    require_sensible(frozen.model_copy(update={"schedule": "cosine", "scheduler_epochs": [3]}))
    assert caplog.messages == [
        "--backbone-lr, --layer-decay: no effect on a frozen backbone (--tune)",
        "--scheduler-epochs: no effect with --schedule cosine",
    ]
