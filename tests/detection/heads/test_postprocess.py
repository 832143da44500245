"""Both halves of post-processing against torchvision's NMS, on random candidates."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from src.core.structures import Detections
from src.detection.heads import postprocess
from src.detection.heads.postprocess import (
    Candidates,
    choose,
    cut_out,
    nms_within,
    suppressed,
)
from src.detection.model import build_detector
from tests.detection.heads.tester import CONVNEXT, picture

SIZES = [(200, 300), (150, 260), (200, 300)]


def random_candidates(seed: int, count: int, classes: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes [3, count, 4] in clusters, some beyond the image or without area; scores; labels."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(3, 12, 2, generator=generator) * 300
    of = torch.randint(0, 12, (3, count, 1), generator=generator).expand(-1, -1, 2)
    centre = places.gather(1, of) + torch.randn(3, count, 2, generator=generator) * 8
    half = torch.rand(3, count, 2, generator=generator) * 40
    half[:, ::17] = 0
    labels = torch.randint(1, classes + 1, (3, count), generator=generator)
    boxes = torch.cat([centre - half, centre + half], dim=2)
    return boxes, torch.rand(3, count, generator=generator), labels


def named(boxes: Tensor, scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
    return {"boxes": boxes, "scores": scores, "labels": labels}


def by_torchvision(
    boxes: Tensor, scores: Tensor, labels: Tensor, *, score: float, iou: float, limit: int
) -> list[Detections]:
    """An image after another, as torchvision's detectors do it."""
    answers: list[Detections] = []
    for box, value, label, size in zip(boxes, scores, labels, SIZES):
        box = clip_boxes_to_image(box, size)
        keep = (value > score) & (box[:, 2:] > box[:, :2]).all(dim=1)
        box, value, label = box[keep], value[keep], label[keep]
        best = batched_nms(box, value, label, iou)[:limit]
        answers.append({"boxes": box[best], "scores": value[best], "labels": label[best]})
    return answers


def on_the_device(found: Candidates, iou: float) -> Candidates:
    """What a GPU would have said."""
    kept, settled = suppressed(
        found["boxes"][None], found["labels"][None], found["scores"][None] >= 0, iou
    )
    return {**found, "kept": kept[0], "settled": settled[0]}


@pytest.mark.parametrize("iou", [0.3, 0.45, 0.7])
@pytest.mark.parametrize("seed", range(4))
def test_both_ways_are_torchvisions(seed, iou):
    given = random_candidates(seed, 700)
    theirs = by_torchvision(*given, score=0.1, iou=iou, limit=100)
    found = choose(named(*given), SIZES, score=0.1, iou=iou)
    for one, other in zip(found, theirs):
        assert not one["settled"]
        device = on_the_device(one, iou)
        assert device["settled"]
        for answer in (one, device):
            mine = cut_out(answer, iou=iou, limit=100)
            for key in ("boxes", "scores", "labels"):
                assert torch.equal(mine[key], other[key]), key


def test_of_many_candidates_the_best_count():
    given = random_candidates(5, 3000)
    theirs = by_torchvision(*given, score=0.0, iou=0.5, limit=3000)
    for one, other in zip(choose(named(*given), SIZES, score=0.0, iou=0.5), theirs):
        mine = cut_out(one, iou=0.5, limit=3000)
        count = len(mine["scores"])
        assert 10 < count <= len(other["scores"])
        assert torch.equal(mine["boxes"], other["boxes"][:count])


def test_a_chain_longer_than_the_rounds_is_left_to_the_host(monkeypatch):
    count = 80  # each box pushes out the next one alone
    x = torch.arange(count) * 4.0
    boxes = torch.stack([x, torch.zeros(count), x + 10, torch.full((count,), 10.0)], dim=1)[None]
    scores = torch.linspace(0.9, 0.1, count)[None]
    labels = torch.ones(1, count, dtype=torch.int64)
    (found,) = choose(named(boxes, scores, labels), [(400, 400)], score=0.0, iou=0.3)
    found = on_the_device(found, 0.3)
    assert not found["settled"]
    mine = cut_out(found, iou=0.3, limit=100)
    assert torch.equal(mine["boxes"], boxes[0, ::2])
    monkeypatch.setattr(postprocess, "ROUNDS", count + 1)
    settled = on_the_device(found, 0.3)
    assert settled["settled"]
    assert torch.equal(settled["kept"].nonzero()[:, 0], torch.arange(0, count, 2))


def test_nothing_above_the_floor():
    given = random_candidates(1, 50)
    for one in choose(named(*given), SIZES, score=1.0, iou=0.5):
        for found in (one, on_the_device(one, 0.5)):
            assert len(cut_out(found, iou=0.5, limit=10)["boxes"]) == 0


def test_a_floor_changes_nothing_above_it():
    torch.manual_seed(0)
    detector = build_detector(CONVNEXT, 4, head="ssd", channels=32).eval()
    image = picture(96, 96)
    whole = detector([image])[0]
    floor = float(whole["scores"][len(whole["scores"]) // 2])
    detector.keep_above(floor)
    kept = detector([image])[0]
    wanted = whole["scores"] >= floor
    assert 0 < wanted.sum() < len(wanted)
    count = int(wanted.sum())
    assert torch.equal(kept["boxes"][:count], whole["boxes"][wanted])
    assert (kept["scores"] >= floor - 1e-5).all()


def test_nms_within_a_graph_is_torchvisions():
    given = random_candidates(3, 700)
    found = nms_within(named(*given), iou=0.5, limit=50)
    for row, (boxes, scores, labels) in enumerate(zip(*given)):
        best = batched_nms(boxes, scores, labels, 0.5)[:50]
        assert torch.equal(found["boxes"][row], boxes[best])
        assert torch.equal(found["scores"][row], scores[best])
        assert torch.equal(found["labels"][row], labels[best])
    alone = nms_within(named(*(one[:, :1] for one in given)), iou=0.5, limit=50)
    assert alone["boxes"].shape == (3, 1, 4)
