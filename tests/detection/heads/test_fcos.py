from __future__ import annotations

import pytest
import torch
from torchvision.models.detection import FCOS as TorchvisionFCOS

from tests.detection.heads.dense import (
    COUNTS,
    SIZES,
    Body,
    finished,
    random_boxes,
    random_outputs,
    same_detections,
)
from tests.detection.heads.test_retinanet import shifted
from tests.detection.heads.tester import CLASSES, VARIANTS, VIT, HeadTester, target


class TestFCOS(HeadTester):
    head = "fcos"
    learn_share = 0.4  # centreness has a floor above 0

    @pytest.mark.parametrize(("model", "feature_extractor"), VARIANTS)
    def test_one_output_a_point(self, model, feature_extractor):
        detector = self.build(model, feature_extractor).eval()
        maps = list(detector.neck(detector.backbone(torch.zeros(1, 3, 96, 160))).values())
        assert all(o.shape[1] == len(detector.anchors(maps)) for o in detector.head(maps))

    def test_selects_as_torchvision(self):
        detector = self.build(VIT, "multi")
        reference = TorchvisionFCOS(
            Body(),
            CLASSES - 1,
            nms_thresh=detector.nms,
            score_thresh=detector.score,
            detections_per_img=detector.limit,
            topk_candidates=300,
        )
        detector.candidates = 300
        anchors = random_boxes(sum(COUNTS))
        distances = random_outputs(4, 0.3).abs()
        logits, centreness = random_outputs(CLASSES - 1, 2.0, seed=2), random_outputs(1, 1.0)
        outputs = {
            "bbox_regression": list(distances.split(COUNTS, dim=1)),
            "cls_logits": list(logits.split(COUNTS, dim=1)),
            "bbox_ctrness": list(centreness.split(COUNTS, dim=1)),
        }
        split = list(anchors.split(COUNTS))
        theirs = reference.postprocess_detections(outputs, [split] * 2, SIZES)
        for answer in theirs:
            answer["labels"] = answer["labels"] + 1
        found = detector.select(distances, logits, centreness.squeeze(2), anchors, COUNTS)
        same_detections(finished(detector, found), theirs)

    def test_loss_is_torchvisions(self):
        detector = self.build(VIT, "multi")
        reference = TorchvisionFCOS(Body(), CLASSES - 1)
        maps = [torch.zeros(1, 8, 160 // s, 160 // s) for s in (8, 16, 32)]
        detector.anchors.strides = [8, 16, 32]
        detector.anchors.cells = [[(float(s), float(s))] for s in (8, 16, 32)]
        anchors, counts = detector.anchors(maps), detector.anchors.per_level(maps)
        generator = torch.Generator().manual_seed(0)
        distances = torch.rand(2, len(anchors), 4, generator=generator) * 3
        logits = torch.randn(2, len(anchors), CLASSES - 1, generator=generator)
        centreness = torch.randn(2, len(anchors), generator=generator)
        targets = [
            target((10, 10, 40, 50, 1), (20, 20, 150, 155, 3), (22, 20, 60, 55, 2)),
            target(),
        ]
        outputs = {
            "bbox_regression": distances,
            "cls_logits": logits,
            "bbox_ctrness": centreness.unsqueeze(2),
        }
        theirs = reference.compute_loss(shifted(targets), outputs, [anchors] * 2, counts)
        ours = detector.loss_of(distances, logits, centreness, anchors, counts, targets)
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert theirs[name] > 0
            torch.testing.assert_close(ours[name], theirs[name])
