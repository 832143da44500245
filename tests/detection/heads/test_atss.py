from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from src.detection.heads.anchors import AnchorGrid
from src.detection.heads.matching import BACKGROUND
from src.detection.heads.quality import (
    match_adaptive,
    quality_losses,
    varifocal_sums,
)
from tests.detection.heads.dense import random_boxes, random_outputs
from tests.detection.heads.tester import CLASSES, VARIANTS, VIT, HeadTester, target


class TestATSS(HeadTester):
    head = "atss"

    @pytest.mark.parametrize(("model", "feature_extractor"), VARIANTS)
    def test_one_output_a_cell(self, model, feature_extractor):
        detector = self.build(model, feature_extractor).eval()
        maps = list(detector.neck(detector.backbone(torch.zeros(1, 3, 96, 160))).values())
        cells = sum(m.shape[-2] * m.shape[-1] for m in maps)
        assert all(
            o.shape[1] == cells for o in (*detector.head(maps), detector.anchors(maps)[None])
        )

    def test_starts_from_the_focal_prior_at_the_anchors(self):
        detector = self.build(VIT, "multi").eval()
        maps = list(detector.neck(detector.backbone(torch.randn(1, 3, 96, 96))).values())
        offsets, logits = detector.head(maps)
        assert 0.005 < logits.sigmoid().mean() < 0.02
        assert offsets.abs().mean() < 0.5


def grid() -> tuple[torch.Tensor, list[int]]:
    """Anchors of three levels on 128 x 96 pixels, and how many each level has."""
    maps = [torch.zeros(1, 1, 96 // s, 128 // s) for s in (8, 16, 32)]
    anchors = AnchorGrid([[(4.0 * s, 4.0 * s)] for s in (8, 16, 32)], [8, 16, 32])
    return anchors(maps), anchors.per_level(maps)


def by_the_paper(boxes: np.ndarray, anchors: np.ndarray, counts: list[int], k: int) -> np.ndarray:
    """Algorithm 1 of ATSS, line by line, and the rescue of the best candidate."""
    overlaps = box_iou(torch.from_numpy(anchors), torch.from_numpy(boxes)).numpy()
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    owner, owned = np.full(len(anchors), BACKGROUND), np.zeros(len(anchors))
    for g, box in enumerate(boxes):
        middle = (box[:2] + box[2:]) / 2
        candidates: list[int] = []
        start = 0
        for count in counts:
            distance = ((centres[start : start + count] - middle) ** 2).sum(axis=1)
            candidates += (start + np.argsort(distance, kind="stable")[:k]).tolist()
            start += count
        own = overlaps[candidates, g]
        least = own.mean() + own.std(ddof=1)
        best = candidates[int(own.argmax())]
        for a in candidates:
            inside = (centres[a] > box[:2]).all() and (centres[a] < box[2:]).all()
            positive = (overlaps[a, g] >= least and inside) or (a == best and own.max() > 0)
            if positive and overlaps[a, g] > owned[a]:
                owner[a], owned[a] = g, overlaps[a, g]
    return owner


@pytest.mark.parametrize("seed", range(4))
def test_assignment_is_the_papers(seed):
    anchors, counts = grid()
    # Not a multiple of anything, so that no two centres are equally far.
    boxes = random_boxes(5, seed) * torch.tensor([1.03, 0.77, 1.03, 0.77])
    ours = match_adaptive(boxes, anchors, counts)
    theirs = by_the_paper(boxes.numpy(), anchors.numpy(), counts, 9)
    assert (theirs >= 0).any()
    np.testing.assert_array_equal(ours.numpy(), theirs)


def test_every_box_with_area_has_an_anchor_and_others_none():
    anchors, counts = grid()
    boxes = torch.tensor([[3.0, 3, 5, 4], [60, 1, 61, 95], [0, 0, 128, 96], [9, 9, 9, 20]])
    match = match_adaptive(boxes, anchors, counts)
    assert set(match.unique().tolist()) == {BACKGROUND, 0, 1, 2}
    assert (match_adaptive(boxes[:0], anchors, counts) == BACKGROUND).all()


def test_varifocal_loss_is_the_papers():
    logits = random_outputs(3, 2.0).double().requires_grad_()
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, logits.shape[:2], generator=generator)
    quality = torch.rand(labels.shape, generator=generator, dtype=torch.float64)
    expected = torch.zeros(2, dtype=torch.float64)
    score = logits.sigmoid()
    for c in range(3):
        y = torch.where(labels == c + 1, quality, 0.0)
        s = score[..., c]
        positive = -y * (y * s.log() + (1 - y) * (1 - s).log())
        expected += torch.where(y > 0, positive, -0.75 * s**2 * (1 - s).log()).sum(dim=1)
    torch.testing.assert_close(varifocal_sums(logits, labels, quality), expected)


def test_the_loss_is_least_where_score_and_box_are_right():
    anchors, counts = grid()
    targets = [target((10, 10, 40, 50, 1), (60, 20, 110, 80, 3)), target()]
    matches = [match_adaptive(t["boxes"], anchors, counts) for t in targets]
    boxes = torch.stack([targets[0]["boxes"][matches[0].clamp(min=0)], anchors])
    logits = torch.full((2, len(anchors), CLASSES - 1), -12.0)
    for i, label in enumerate((1, 3)):
        logits[0, matches[0] == i, label - 1] = 12.0
    right = quality_losses(boxes, logits, anchors, matches, targets)
    assert all(value < 1e-3 for value in right.values())
    moved = quality_losses(boxes + 6, logits, anchors, matches, targets)
    assert moved["bbox_regression"] > 0.2
    assert moved["classification"] > 10 * right["classification"]  # sure of boxes that do not fit
