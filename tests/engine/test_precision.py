"""One arithmetic for all commands, and truth that keeps its digits."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.backbones.batching import FeatureModel
from src.backbones.build import build_backbone
from src.core.cli import parse
from src.core.errors import UserError
from src.core.structures import Size
from src.data.common.shapes import fix_shapes
from src.depth.settings import TrainDepth
from src.depth.train import DepthTask
from src.engine.distributed import build_fabric, synchronise_norms
from src.engine.ema import MovingAverage
from src.engine.precision import arithmetic, choose_batch, choose_device, choose_type, exact
from src.engine.settings import TrainingOptions
from src.features.settings import FeatureOptions
from src.predict.settings import PredictOptions
from src.segmentation.settings import TrainSegmentation
from src.segmentation.train_semantic import SegmentationTask


@dataclass(frozen=True)
class Kept:
    values: Tensor


class Listening(nn.Module):
    """Says what came in, and in which type it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, kept: Kept, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        self.heard, self.truth = kept.values, targets[0]["boxes"]
        answer = self.layer(kept.values)
        self.computed = answer.dtype
        return {"loss": (answer.float().mean() - self.truth).square().mean()}


def test_inputs_reach_the_model_as_they_left_the_loader():
    """Fabric's own plugin rounds 333.37 to 334, and refuses frozen dataclasses."""
    fabric = build_fabric(TrainingOptions(out_dir="x", device="cpu"), torch.bfloat16)
    model = Listening()
    boxes = torch.tensor([[0.1, 333.37, 512.63, 639.9]])
    wrapped = fabric.setup_module(model)
    loss = wrapped(Kept(torch.rand(2, 3)), [{"boxes": boxes}])["loss"]
    assert torch.equal(model.truth, boxes) and model.heard.dtype == torch.float32
    assert model.computed == torch.bfloat16 and loss.dtype == torch.float32
    fabric.backward(loss)
    assert model.layer.weight.grad is not None


def test_every_command_names_it_alike():
    for settings, given in (
        (TrainingOptions, {"out_dir": "x"}),
        (PredictOptions, {"out_dir": "x", "model": "m"}),
        (FeatureOptions, {"model_name": "dinov3_vitt16"}),
    ):
        for word in ("auto", "32", "bf16", "16"):
            assert settings(**given, precision=word).precision == word
        assert settings(**given, precision="bf16-mixed").precision == "bf16"  # training's old word


def test_the_rule(caplog):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_type("auto", cpu, "dinov3_vits16") == torch.float32
    assert choose_type("bf16", cpu, "dinov3_vits16") == torch.bfloat16
    with pytest.raises(UserError, match="--precision 16 needs a CUDA device"):
        choose_type("16", cpu, "dinov3_vits16")
    with caplog.at_level(logging.WARNING):
        assert choose_type("16", cuda, "dinov2_vits14") == torch.float16
        assert not caplog.text
        assert choose_type("16", cuda, "dinov3_vits16") == torch.float16
        assert "overflow" in caplog.text and "use bf16" in caplog.text


def test_each_process_of_torchrun_has_its_own_gpu(monkeypatch):
    """Before Fabric starts, too: all processes' probes of kept features would meet on the first."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", 1)
    assert choose_device("cuda:0").index == 0 and choose_device("cpu").type == "cpu"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="with 2 CUDA devices; lower --nproc_per_node"):
        choose_device("auto")


def test_float32_is_float32_on_cuda():
    torch.set_float32_matmul_precision("high")
    try:
        choose_type("32", "cuda", "dinov3_vits16")
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")


def test_what_needs_the_digits_has_them():
    x = torch.rand(4, 4)
    with arithmetic(torch.bfloat16, "cpu"):
        assert (x @ x).dtype == torch.bfloat16
        with exact(x.device):
            assert torch.equal(x @ x, torch.matmul(x, x)) and (x @ x).dtype == torch.float32


def test_averaged_weights_have_averaged_statistics():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    average = MovingAverage(model, 0.5)
    expected = model[1].running_mean.clone()
    for step in range(20):
        model(torch.randn(8, 3) + step)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = expected.lerp(model[1].running_mean, 1 - decay)
    own = model[1].running_mean.clone()
    with average.swapped():
        torch.testing.assert_close(model[1].running_mean, expected)
        assert not torch.allclose(model[1].running_mean, own, rtol=0.01)
        assert model[1].num_batches_tracked == 20
    assert torch.equal(model[1].running_mean, own)
    state = average.state()
    again = MovingAverage(model, 0.5)
    again.load(state)
    assert torch.equal(again.average["1.running_mean"], average.average["1.running_mean"])
    again.load({})  # a run of before, without statistics
    assert torch.equal(again.average["1.running_mean"], average.average["1.running_mean"])


def test_norms_of_several_processes_share_their_statistics():
    from src.backbones.dense import BatchNorm2d

    model = nn.Sequential(nn.Conv2d(3, 4, 1), BatchNorm2d(4), nn.Sequential(nn.BatchNorm1d(4)))
    before = dict(model.named_parameters())
    keys = list(model.state_dict())
    synchronise_norms(model)
    kinds = [type(m) for m in model.modules() if "BatchNorm" in type(m).__name__]
    assert kinds == [nn.SyncBatchNorm] * 2 and list(model.state_dict()) == keys
    assert all(p is before[name] for name, p in model.named_parameters())


def test_few_shapes_and_the_fastest_kernels_of_each():
    model = FeatureModel(build_backbone("dinov3_vitt16"))
    for device, shapes in (("cpu", 0), ("cuda", 9)):
        fix_shapes(model, Size(640, 640), "fit", torch.device(device))
        assert len(model.canvases) == shapes
    assert torch.backends.cudnn.benchmark
    fix_shapes(model, Size(640, 640), "short", torch.device("cuda"))
    assert not torch.backends.cudnn.benchmark


def test_default_batch(tmp_path):
    """16 on CUDA, 4 on the CPU; the YAML's TRAIN goes before it, and a flag before that."""
    assert choose_batch(None, torch.device("cuda")) == 16 and choose_batch(2, "cpu") == 2
    words = ["--model-name", "dinov3_vitt16", "--out-dir", str(tmp_path), "--device", "cpu"]
    for config, flags, batch in (
        ("segmentation_configs/ade20k.yaml", [], 4),
        ("depth_configs/nyu.yaml", [], 16),
        ("depth_configs/nyu.yaml", ["--batch", "6"], 6),
    ):
        depth = config.startswith("depth")
        settings: Any = TrainDepth if depth else TrainSegmentation
        options = parse(settings, [*words, "--config", config, *flags])
        assert (DepthTask if depth else SegmentationTask)(options).options.batch == batch
