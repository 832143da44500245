from __future__ import annotations

import copy
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from src.backbones.catalog import CATALOG
from src.core.errors import UserError
from src.core.structures import Size
from src.detection.heads.matching import match_anchors
from src.detection.heads.registry import HEAD_BUILDERS
from src.detection.model import build_detector, dinov3_detection, main
from src.detection.settings import HEADS
from tests.detection.heads.tester import CONVNEXT, VIT, picture, target

PROJECT = Path(__file__).resolve().parents[2]


def test_every_head_that_the_flags_name_is_registered():
    assert tuple(HEAD_BUILDERS) == HEADS


def test_unknown_head_and_too_few_classes():
    with pytest.raises(UserError, match="did you mean 'retinanet'"):
        build_detector(VIT, 3, head="retinnet")
    with pytest.raises(UserError, match="at least 2 classes"):
        build_detector(VIT, 1, head="ssd")


@pytest.mark.parametrize("head", ["ssd", "retinanet"])
def test_the_tutorials_entry(head, caplog):
    with caplog.at_level(logging.WARNING):
        model = dinov3_detection(
            fine_tune=False,
            num_classes=3,
            weights=None,
            model_name=CONVNEXT,
            resolution=[128, 96],
            head=head,
        )
    assert "RANDOM" in caplog.text
    images = [picture(50, 70), picture(200, 300)]
    losses = model.train()(images, [target((5, 5, 40, 40, 1)), target((50, 50, 200, 150, 2))])
    assert set(losses) == {"classification", "bbox_regression"}
    model.eval()
    with torch.inference_mode():
        answers = model(images)
        tensor = model(torch.rand(1, 3, 96, 128))
    assert len(tensor) == 1
    assert set(answers[0]) == {"boxes", "scores", "labels"}
    assert answers[1]["boxes"].max() > 128  # in the pixels of the large image
    assert (answers[0]["boxes"][:, 2] <= 70).all() and (answers[0]["boxes"][:, 3] <= 50).all()


def test_training_without_targets_is_explained():
    detector = build_detector(CONVNEXT, 3, head="ssd", channels=16).train()
    with pytest.raises(UserError, match="model.eval"):
        detector([picture(64, 64)])


def test_a_copy_is_independent():
    # An averaged model (EMA) is a deep copy.
    detector = build_detector(CONVNEXT, 3, head="ssd", channels=16).eval()
    twin = copy.deepcopy(detector)
    for parameter in twin.parameters():
        parameter.data.zero_()
    with torch.inference_mode():
        one, other = detector([picture(64, 64)])[0], twin([picture(64, 64)])[0]
    assert not torch.equal(one["scores"][:5], other["scores"][:5])
    assert twin.backbone is not detector.backbone


@pytest.mark.parametrize("head", HEADS)
def test_mixed_precision(head):
    detector = build_detector(CONVNEXT, 3, head=head, channels=32).train()
    images, targets = [picture(64, 96)], [target((5, 5, 40, 40, 1))]
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector(images, targets)
        sum(losses.values()).backward()
        with torch.inference_mode():
            answer = detector.eval()(images)[0]
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert answer["boxes"].dtype == answer["scores"].dtype == torch.float32


def test_training_after_inference_uses_the_remembered_anchors():
    detector = build_detector(CONVNEXT, 3, head="fcos", channels=16).eval()
    images, targets = [picture(64, 96)], [target((5, 5, 40, 40, 1))]
    with torch.inference_mode():
        detector(images)
    sum(detector.train()(images, targets).values()).backward()


def test_resizing_inside_is_the_loaders_resizing():
    detector = build_detector(
        CONVNEXT, 3, head="ssd", channels=16, image_size=Size(96, 64), resize="fit"
    )
    images, _ = detector.transform.apply([picture(100, 90)], None)
    batch = detector.feature_maps(images)
    assert batch.sizes == [(64, 58)] and batch.padded == (64, 64)  # a multiple of 32


def test_matching_of_a_truth_that_overlaps_nothing():
    anchors = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    boxes = torch.tensor([[0.0, 0, 10, 9], [100, 100, 120, 120]])
    for ties in (False, True):
        matches = match_anchors(boxes, anchors, 0.5, 0.5, rescue_ties=ties)
        assert matches.tolist() == [0, -1]


def test_summary(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--model-name", CONVNEXT, "--head", "ssd", "--imgsz", "64"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "SSDHead" in printed and "Total params" in printed


RANKS = """
import sys, torch, torch.distributed as dist
from tests.detection.test_model import gradients
torch.set_num_threads(1)
rank, rendezvous, out = int(sys.argv[1]), *sys.argv[2:4]
dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
for head in ("ssd", "retinanet", "fcos"):
    values = gradients(head, [rank])
    dist.all_reduce(values)
    if rank == 0:
        torch.save(values / 2, f"{out}/{head}.pt")
"""


def gradients(head: str, images: list[int]) -> torch.Tensor:
    """The head's and neck's gradients on the images of these numbers, in one vector."""
    torch.manual_seed(0)
    detector = build_detector(CONVNEXT, 3, head=head, channels=32).train()
    boxes = [[(5, 5, 40, 40, 1)], [(5, 5, 40, 40, 1), (50, 10, 80, 60, 2)]]
    losses = detector(
        [picture(64, 96, (5, 5, 40, 40), seed=i) for i in images],
        [target(*boxes[i]) for i in images],
    )
    sum(losses.values()).backward()
    return torch.cat([p.grad.flatten() for p in detector.parameters() if p.grad is not None])


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RANKS, str(rank), str(tmp_path / "meet"), str(tmp_path)],
            cwd=PROJECT,
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    for head in ("ssd", "retinanet", "fcos"):
        found = torch.load(tmp_path / f"{head}.pt", weights_only=True)
        torch.testing.assert_close(found, gradients(head, [0, 1]), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "channels"),
    [("dinov3_convnext_atto", 64), ("dinov3_vits16", 128), ("dinov3_vitl16", 256)],
)
def test_the_pyramid_is_as_wide_as_the_backbone_affords(name: str, channels: int) -> None:
    from src.detection.model import pyramid_channels

    assert pyramid_channels(SimpleNamespace(spec=CATALOG[name])) == channels  # type: ignore
