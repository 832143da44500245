"""Distillation: by tokens into any network, by the heads of a teacher of our own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.fake_cuda import count, fake_cuda
from src.backbones.build import build_backbone
from src.core.errors import UserError
from src.pretraining.tokens import TokenDistillation, TokenLoss, student_network, wrap_network
from src.pretraining.train import train
from tests.pretraining.small import options
from tests.pretraining.tiny import tiny_vit


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory):
    torch.manual_seed(1)
    file = tmp_path_factory.mktemp("teacher") / "teacher.pth"
    hub_model = build_backbone("dinov3_vitt16", weights="none", hub="bundled").hub_model
    torch.save(hub_model.official_state(), file)
    return file


def small_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


def test_a_student_that_is_the_teacher_has_no_patch_loss_and_learns_the_queue():
    torch.manual_seed(0)
    teacher = tiny_vit()
    student = tiny_vit()
    student.load_state_dict(teacher.state_dict())
    model = TokenDistillation(student, teacher, queue=32)
    with torch.no_grad():
        model.project.weight.copy_(torch.eye(64))
        model.project.bias.zero_()
    crops = torch.randint(0, 255, (1, 8, 3, 32, 32), dtype=torch.uint8)
    terms = model.train()(crops)
    assert set(terms) == {"queue", "patches"}
    assert float(terms["queue"].detach()) == pytest.approx(0, abs=1e-5)
    assert float(terms["patches"].detach()) == pytest.approx(0, abs=1e-5)
    assert int(model.filled) == 8
    for _ in range(5):
        model(torch.randint(0, 255, (1, 8, 3, 32, 32), dtype=torch.uint8))
    assert int(model.filled) == 32
    model.eval()(crops)
    assert int(model.filled) == 32


def test_any_network_is_a_student_and_learns():
    torch.manual_seed(0)
    student = wrap_network(small_network(), 64)
    assert student.channels == 16
    frozen = {n for n, p in student.network.named_parameters() if not p.requires_grad}
    assert frozen == {"6.weight", "6.bias"}  # behind the map
    model = TokenDistillation(student, tiny_vit(), queue=16).train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    crops = torch.randint(0, 255, (1, 6, 3, 64, 64), dtype=torch.uint8)
    losses = []
    for _ in range(25):
        loss = torch.stack(list(model(crops).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_a_network_without_a_map_is_refused():
    with pytest.raises(UserError, match="has no map"):
        wrap_network(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4)), 32)
    with pytest.raises(UserError, match="timm/no_such_net"):
        student_network("timm/no_such_net", False, 32)


@pytest.mark.parametrize("name", ["timm/resnet10t", "torchvision/mobilenet_v3_small"])
def test_a_run_into_a_network_of_a_library(name, textures, tmp_path, teacher_file):
    words = ["--teacher", "dinov3_vitt16", "--teacher-weights", str(teacher_file)]
    words += ["--student", name, "--global-size", "64", "--epochs", "1"]
    history = train(options(textures, tmp_path / "run", *words))
    assert {"loss_queue", "loss_patches"} <= set(history.last)
    state = torch.load(tmp_path / "run" / "backbone.pth", weights_only=True)
    network = student_network(name, False, 64).network
    network.load_state_dict(state)
    assert "load_state_dict" in (tmp_path / "run" / "backbone.yaml").read_text()


def test_heads_of_a_teacher_of_our_own(textures, tmp_path):
    """A smaller DINO learns from a run's teacher through its heads; the teacher stays."""
    first = tmp_path / "teacher"
    train(options(textures, first, "--epochs", "1", "--epoch-steps", "1"))
    last = first / "last_model.pth"
    words = ["--teacher", str(last), "--student", "dinov3_convnext_atto", "--ibot", "0"]
    words += ["--local-size", "32", "--global-size", "32", "--epochs", "1", "--epoch-steps", "1"]
    words += ["--koleo", "0"]
    history = train(options(textures, tmp_path / "small", *words))
    assert "loss_dino_global" in history.last
    kept = torch.load(tmp_path / "small" / "last_model.pth", weights_only=True)["model"]
    theirs = torch.load(last, weights_only=True)["model"]
    name = "backbone.hub_model.model.norm.weight"
    assert torch.equal(kept[f"guide.{name}"], theirs[f"teacher.{name}"])
    assert "teacher.backbone.hub_model.model.stem.0.weight" in kept, "the student's own average"
    with pytest.raises(UserError, match="has 32; give --prototypes 32"):
        train(options(textures, tmp_path / "x", *words, "--k", "64"))


def test_the_queue_counts_as_far_as_it_is_filled_and_nothing_waits() -> None:
    def step(loss: TokenLoss, like: torch.Tensor) -> torch.Tensor:
        pooled, truth, patches = like[:, 0, :6], like[:, 0], like
        return loss.compare(pooled, patches, truth, patches)["queue"]

    torch.manual_seed(0)
    loss, drawn = TokenLoss(6, 8, queue=32), torch.randn(2, 4, 5, 8)
    step(loss, drawn[0])
    keys = F.normalize(drawn[:, :, 0].flip(0).reshape(8, 8), dim=1)
    ours = F.normalize(loss.project(drawn[1, :, 0, :6]), dim=1)
    student, teacher = ((one @ keys.T / 0.07).log_softmax(1) for one in (ours, keys[:4]))
    wanted = (teacher.exp() * (teacher - student)).sum(1).mean()
    torch.testing.assert_close(step(loss, drawn[1]), wanted)
    with fake_cuda(), torch.device("cuda"):
        there = TokenLoss(6, 8, queue=32)
        images = torch.zeros(4, 5, 8)
        assert not count(lambda: step(there, images)).found
