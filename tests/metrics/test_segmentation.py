"""The metric against torchmetrics, and against shapes whose figures are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from src.core.structures import IGNORE
from src.metrics.segmentation import SegmentationMetric


def split(classes: int, images: int = 4, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    pairs = []
    for i in range(images):
        truth = rng.integers(0, classes - 1, (20 + i, 30)).astype(np.uint8)  # the last is absent
        found = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, classes - 1))
        truth[rng.random(truth.shape) < 0.1] = IGNORE
        pairs.append((found.astype(np.uint8), truth))
    return pairs


def measure(pairs, classes: int, **options):
    metric = SegmentationMetric([f"c{i}" for i in range(classes)], **options)
    for found, truth in pairs:
        metric.update(found, truth)
    return metric


def test_equals_torchmetrics() -> None:
    from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

    classes, pairs = 6, split(6)
    scores = measure(pairs, classes).compute()
    found = torch.from_numpy(np.concatenate([p.ravel() for p, _ in pairs])).long()
    truth = torch.from_numpy(np.concatenate([t.ravel() for _, t in pairs])).long()

    def theirs(kind, average):
        return kind(classes, average=average, ignore_index=IGNORE)(found, truth).numpy()

    np.testing.assert_allclose(
        np.nan_to_num(scores.iou), theirs(MulticlassJaccardIndex, "none"), atol=1e-6
    )
    flat = scores.flat()
    assert flat["mIoU"] == pytest.approx(float(theirs(MulticlassJaccardIndex, "macro")), abs=1e-6)
    micro = float(theirs(MulticlassAccuracy, "micro"))
    assert flat["pixel_accuracy"] == pytest.approx(micro, abs=1e-6)
    assert np.isnan(scores.iou[-1]), "a class without a pixel has no IoU"


def test_is_not_the_mean_over_images() -> None:
    big, small = np.zeros((100, 100), np.uint8), np.ones((10, 10), np.uint8)
    scores = measure([(big, big), (np.zeros_like(small), small)], 2).compute()
    assert scores.iou.tolist() == pytest.approx([10000 / 10100, 0.0])
    assert scores.flat()["mIoU"] == pytest.approx(0.5 * 10000 / 10100)


def test_shares_of_processes_merge() -> None:
    pairs = split(5, 6, seed=3)
    whole, first, second = (measure(p, 5, boundary=True) for p in (pairs, pairs[::2], pairs[1::2]))
    first.merge(second.state())
    assert first.compute().as_dict() == whole.compute().as_dict()


def test_boundary_f_sees_what_iou_hardly_does() -> None:
    truth = np.zeros((200, 200), np.uint8)
    truth[40:160, 40:160] = 1
    ragged = truth.copy()
    ragged[40:160:8, 30:40] = 1  # teeth of 10 pixels: few pixels, a lot of boundary
    near = np.roll(truth, 1, axis=1)  # within the tolerance of 2 pixels
    names = ["ground", "square"]
    scores = {}
    for name, found in (("same", truth), ("near", near), ("ragged", ragged)):
        metric = SegmentationMetric(names, boundary=True)
        metric.update(found, truth)
        scores[name] = metric.compute()
    assert scores["same"].flat()["boundary_F"] == 1
    assert scores["near"].flat()["boundary_F"] == 1
    assert scores["ragged"].iou[1] > 0.98
    assert scores["ragged"].flat()["boundary_F"] < 0.9


def boundary_f(found: np.ndarray, truth: np.ndarray) -> float:
    return measure([(found, truth)], 2, boundary=True).compute().flat()["boundary_F"]


def test_void_is_no_boundary_to_be_rewarded_for() -> None:
    """VOC's ring of void hides the boundary and does not make one."""
    plain = np.zeros((120, 120), np.uint8)
    plain[30:90, 30:90] = 1
    ringed = plain.copy()
    ringed[27:93, 27:93] = IGNORE
    ringed[33:87, 33:87] = 1
    everywhere, shifted = np.ones_like(plain), np.roll(plain, 12, axis=0)
    for truth in (plain, ringed):
        assert boundary_f(everywhere, truth) == 0
        assert boundary_f(plain, truth) == 1
        assert boundary_f(shifted, truth) < 0.75
    sea = plain.copy()
    sea[:, 60:] = IGNORE  # half of the image is void: whatever is said of it, and at its rim
    other = plain.copy()
    other[:, 70:] = 1
    assert boundary_f(plain, sea) == boundary_f(other, sea) == 1
    assert np.isnan(boundary_f(plain, np.full_like(plain, IGNORE)))
