"""The GPU benchmark's own path, at a tiny size on the CPU; with CUDA at a small one there."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.gpu import (
    STAGES,
    GpuOptions,
    build_predictor,
    draw_video,
    frames_of,
    measure,
)
from src.core.structures import Size


def tiny(tmp_path, **changes) -> GpuOptions:
    values = {
        "model_name": "dinov3_convnext_atto",
        "heads": ["ssd"],
        "imgsz": [64, 48],
        "batch": 2,
        "seconds": 0.01,
        "frames": 5,
        "steps": 2,
        "device": "cpu",
        "out_dir": tmp_path,
    }
    return GpuOptions(**{**values, **changes})


def check(folder, heads: list[str]) -> None:
    content = json.loads((folder / "gpu.json").read_text())
    assert [row["head"] for row in content["heads"]] == heads
    for row in content["heads"]:
        figures = [row["training images/s"], row["kept-feature training images/s"]]
        figures += [row["image FPS"], row["video FPS"]]
        figures += [row[f"{stage}, ms"] for stage in STAGES if stage != "upload"]
        assert all(value > 0 for value in figures), row
    text = (folder / "gpu.md").read_text()
    assert all(f"| {head} |" in text for head in heads)


def test_runs_on_the_cpu(tmp_path):
    assert measure(tiny(tmp_path)) == 0
    check(tmp_path, ["ssd"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_says_so_politely_without_cuda(tmp_path, caplog):
    with caplog.at_level("INFO"):
        assert measure(tiny(tmp_path / "none", device="cuda")) == 0
    assert "no CUDA device" in caplog.text
    assert not (tmp_path / "none").exists()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_runs_on_cuda(tmp_path):
    heads = ["ssd", "retinanet", "fcos", "atss", "deimv2"]
    assert measure(tiny(tmp_path, device="cuda", heads=heads, imgsz=[128, 96])) == 0
    check(tmp_path, heads)


def test_heads_with_commas():
    assert GpuOptions(heads="ssd,fcos").heads == ["ssd", "fcos"]


@pytest.mark.parametrize("head", ["ssd", "atss"])
def test_untrained_heads_find_a_likely_number_of_objects(tmp_path, head):
    options = tiny(tmp_path, imgsz=[256, 256])
    video = tmp_path / "video.mp4"
    draw_video(video, Size(256, 256), 5)
    predictor = build_predictor(head, options, Size(256, 256), video)
    found = [len(answer["scores"]) for answer in predictor.predict(frames_of(video, 5))]
    assert 5 < sum(found) / len(found) < 80, found
