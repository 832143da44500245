from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD as TorchvisionSSD
from torchvision.ops import box_iou

from tests.detection.heads.dense import (
    COUNTS,
    SIZES,
    finished,
    random_boxes,
    random_outputs,
    same_detections,
)
from tests.detection.heads.tester import CLASSES, VARIANTS, VIT, HeadTester, target


class TestSSD(HeadTester):
    head = "ssd"

    @pytest.mark.parametrize(("model", "feature_extractor"), VARIANTS)
    def test_one_output_an_anchor(self, model, feature_extractor):
        detector = self.build(model, feature_extractor).eval()
        x = torch.zeros(1, 3, 96, 160)
        maps = list(detector.neck(detector.backbone(x)).values())
        offsets, logits = detector.outputs(maps)
        anchors = detector.anchors(maps)
        assert len(anchors) == offsets.shape[1] == logits.shape[1]
        assert sum(detector.anchors.per_level(maps)) == len(anchors)
        assert logits.shape[2] == CLASSES

    def torchvision(self) -> TorchvisionSSD:
        return TorchvisionSSD(
            nn.Identity(), DefaultBoxGenerator([[2]]), (128, 128), CLASSES, head=nn.Identity()
        )

    def test_selects_as_torchvision(self):
        detector, reference = self.build(VIT, "multi"), self.torchvision()
        anchors = random_boxes(sum(COUNTS))
        offsets, logits = random_outputs(4, 0.3), random_outputs(CLASSES, 2.0, seed=2)
        outputs = {"bbox_regression": offsets, "cls_logits": logits}
        theirs = reference.postprocess_detections(outputs, [anchors] * 2, SIZES)
        same_detections(finished(detector, detector.select(offsets, logits, anchors)), theirs)

    def test_loss_is_torchvisions(self):
        detector, reference = self.build(VIT, "multi"), self.torchvision()
        anchors = random_boxes(sum(COUNTS))
        offsets, logits = random_outputs(4, 0.3), random_outputs(CLASSES, 2.0, seed=2)
        targets = [
            target((10, 10, 40, 50, 1), (60, 60, 90, 80, 3)),
            target((30, 40, 50, 60, 2)),
        ]
        matches = [reference.proposal_matcher(box_iou(t["boxes"], anchors)) for t in targets]
        outputs = {"bbox_regression": offsets, "cls_logits": logits}
        theirs = reference.compute_loss(targets, outputs, [anchors] * 2, matches)
        ours = detector.loss_of(offsets, logits, anchors, targets)
        assert ours.keys() == theirs.keys()
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name])

    @pytest.mark.parametrize("feature_extractor", ["last", "multi"])
    def test_anchors_cover_small_and_large_objects(self, feature_extractor):
        detector = self.build(VIT, feature_extractor)
        maps = list(detector.neck(detector.backbone(torch.zeros(1, 3, 640, 640))).values())
        anchors = detector.anchors(maps)
        smallest, centre = (24, 328.0) if feature_extractor == "last" else (12, 324.0)
        for side in (smallest, 40, 100, 200, 400, 600):
            box = torch.full((1, 4), centre) + side / 2 * torch.tensor([-1, -1, 1, 1])
            assert box_iou(box, anchors).max() > 0.4, side
