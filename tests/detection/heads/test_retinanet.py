from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.ops import sigmoid_focal_loss

from src.detection.heads.matching import focal_loss_sums
from tests.detection.heads.dense import (
    COUNTS,
    SIZES,
    Body,
    finished,
    random_boxes,
    random_outputs,
    same_detections,
)
from tests.detection.heads.tester import CLASSES, VARIANTS, VIT, HeadTester, target


def shifted(targets: list) -> list:
    """Targets with labels from 0, for torchvision without a background class."""
    return [{"boxes": t["boxes"], "labels": t["labels"] - 1} for t in targets]


class TestRetinaNet(HeadTester):
    head = "retinanet"

    @pytest.mark.parametrize(("model", "feature_extractor"), VARIANTS)
    def test_one_output_an_anchor(self, model, feature_extractor):
        detector = self.build(model, feature_extractor).eval()
        maps = list(detector.neck(detector.backbone(torch.zeros(1, 3, 96, 160))).values())
        outputs = detector.head(maps)
        anchors = detector.anchors(maps)
        assert len(anchors) == outputs["cls_logits"].shape[1]
        assert sum(detector.anchors.per_level(maps)) == len(anchors)

    def test_selects_as_torchvision(self):
        detector = self.build(VIT, "multi")
        reference = TorchvisionRetinaNet(
            Body(),
            CLASSES - 1,
            nms_thresh=detector.nms,
            score_thresh=detector.score,
            detections_per_img=detector.limit,
            topk_candidates=300,
        )
        detector.candidates = 300
        anchors = random_boxes(sum(COUNTS))
        offsets, logits = random_outputs(4, 0.3), random_outputs(CLASSES - 1, 2.0, seed=2) - 2
        outputs = {
            "bbox_regression": list(offsets.split(COUNTS, dim=1)),
            "cls_logits": list(logits.split(COUNTS, dim=1)),
        }
        split = list(anchors.split(COUNTS))
        theirs = reference.postprocess_detections(outputs, [split] * 2, SIZES)
        for answer in theirs:
            answer["labels"] = answer["labels"] + 1
        found = detector.select(offsets, logits, anchors, COUNTS)
        same_detections(finished(detector, found), theirs)

    def test_loss_is_torchvisions(self):
        detector = self.build(VIT, "multi")
        reference = TorchvisionRetinaNet(Body(), CLASSES - 1)
        anchors = random_boxes(sum(COUNTS))
        offsets, logits = random_outputs(4, 0.3), random_outputs(CLASSES - 1, 2.0, seed=2)
        targets = [target((10, 10, 40, 50, 1), (60, 60, 90, 80, 3)), target()]
        outputs = {"bbox_regression": offsets, "cls_logits": logits}
        theirs = reference.compute_loss(shifted(targets), outputs, [anchors] * 2)
        ours = detector.loss_of(offsets, logits, anchors, targets)
        assert ours.keys() == theirs.keys()
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name])

    def test_starts_from_the_focal_prior(self):
        detector = self.build(VIT, "multi").eval()
        maps = list(detector.neck(detector.backbone(torch.randn(1, 3, 96, 96))).values())
        scores = detector.head(maps)["cls_logits"].sigmoid()
        assert 0.005 < scores.mean() < 0.02


def test_focal_loss_is_torchvisions_with_its_gradient():
    logits = random_outputs(3, 3.0).requires_grad_()
    labels = torch.randint(0, 4, logits.shape[:2], generator=torch.Generator().manual_seed(0))
    valid = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) > 0.2
    one_hot = nn.functional.one_hot(labels, 4)[..., 1:].float()
    theirs = sigmoid_focal_loss(logits, one_hot).sum(dim=2).mul(valid).sum(dim=1)
    ours = focal_loss_sums(logits, labels, valid)
    torch.testing.assert_close(ours, theirs)
    (expected,) = torch.autograd.grad(theirs.sum(), logits)
    (gradient,) = torch.autograd.grad(ours.sum(), logits)
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-4)
