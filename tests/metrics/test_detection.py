"""Detection metrics against torchmetrics, a slow reference and examples by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from src.core.structures import Detections
from src.metrics.boxes import ImageResult, pairwise_iou
from src.metrics.confusion import image_errors
from src.metrics.detection import BoxTruth, DetectionMetric, DetectionScores
from src.metrics.thresholds import best_thresholds
from src.metrics.voc import area, eleven_point

CLASSES = ["__background__", "a", "b", "c", "d"]


def detections(boxes, scores, labels) -> Detections:
    return Detections(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(scores, dtype=torch.float32),
        labels=torch.tensor(labels, dtype=torch.int64),
    )


def truth(boxes, labels, **flags) -> BoxTruth:
    arrays = {name: np.array(values, bool) for name, values in flags.items()}
    return BoxTruth(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), **arrays
    )


def score(pairs, classes=("a", "b"), full=True) -> DetectionScores:
    metric = DetectionMetric(classes)
    for found, true in pairs:
        metric.update([found], [true])
    return metric.compute(full=full)


def random_images(seed: int, images: int = 30, difficult: bool = False, most: int = 12):
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(images):
        n = int(rng.integers(0, 8))
        corner = rng.uniform(0, 300, (n, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(5, 200, (n, 2))], 1)
        labels = rng.integers(1, 4, n)  # class d is in no truth
        m = int(rng.integers(0, most))
        source = rng.integers(0, n, m) if n else np.zeros(0, int)
        near = boxes[source] + rng.normal(0, 6, (len(source), 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        kinds = np.where(rng.random(len(source)) < 0.8, labels[source], rng.integers(1, 5))
        flags = {"difficult": rng.random(n) < 0.3, "crowd": np.zeros(n, bool)}
        found = detections(near, rng.random(len(source)), kinds)
        pairs.append((found, truth(boxes, labels, **(flags if difficult else {}))))
    return pairs


@pytest.mark.parametrize("seed, most", [(0, 12), (1, 12), (2, 250)])
def test_equal_to_torchmetrics(seed, most):
    from torchmetrics.detection import MeanAveragePrecision

    pairs = random_images(seed, most=most)
    ours = score(pairs, CLASSES, full=False)
    # COCO's own thresholds: torchmetrics' defaults are float32 and shift a recall of, say, 3/10.
    theirs = MeanAveragePrecision(
        backend="faster_coco_eval",
        class_metrics=True,
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
    )
    theirs.warn_on_many_detections = False
    for found, true in pairs:
        target = {"boxes": torch.from_numpy(true.boxes), "labels": torch.from_numpy(true.labels)}
        best = found["scores"].argsort(descending=True)[:100]  # an image; theirs: and class
        theirs.update([{key: value[best] for key, value in found.items()}], [target])
    expected = theirs.compute()
    names = {"mAP": "map", "mAP50": "map_50", "mAP75": "map_75", "small": "map_small"}
    names |= {"medium": "map_medium", "large": "map_large", "AR100": "mar_100"}
    for mine, other in names.items():
        assert getattr(ours, mine) == pytest.approx(expected[other].item(), abs=1e-6), mine
    for label, value in zip(expected["classes"].tolist(), expected["map_per_class"].tolist()):
        pair = ours.per_class[CLASSES[label]]
        assert (-1 if pair is None else pair[0]) == pytest.approx(value, abs=1e-6)
    assert ours.per_class["d"] is None


def slow_voc(pairs, label: int, eleven: bool) -> float:
    """VOCevaldet.m in plain loops."""
    rows, positives, used = [], 0, set()
    for image, (found, true) in enumerate(pairs):
        for k, kind in enumerate(true.labels):
            positives += int(kind == label and not true.flags("difficult")[k])
        for box, value, kind in zip(found["boxes"], found["scores"], found["labels"]):
            if int(kind) == label:
                rows.append((-float(value), image, [float(x) for x in box]))
    rights, wrongs, recalls, precisions = 0, 0, [], []
    for _, image, box in sorted(rows, key=lambda row: row[0]):
        best, where, true = 0.0, None, pairs[image][1]
        for k in range(len(true.labels)):
            if true.labels[k] != label:
                continue
            x1, y1, x2, y2 = (float(v) for v in true.boxes[k])
            w, h = min(x2, box[2]) - max(x1, box[0]), min(y2, box[3]) - max(y1, box[1])
            if w <= 0 or h <= 0:
                continue
            union = (x2 - x1) * (y2 - y1) + (box[2] - box[0]) * (box[3] - box[1]) - w * h
            if w * h / union > best:
                best, where = w * h / union, k
        if best >= 0.5 and true.flags("difficult")[where]:
            continue
        if best >= 0.5 and (image, where) not in used:
            used.add((image, where))
            rights += 1
        else:
            wrongs += 1
        recalls.append(rights / positives)
        precisions.append(rights / (rights + wrongs))
    if eleven:
        return (
            sum(
                max([p for r, p in zip(recalls, precisions) if r >= t / 10 - 1e-12], default=0)
                for t in range(11)
            )
            / 11
        )
    total, before = 0.0, 0.0
    for k, recall in enumerate(recalls):
        total += (recall - before) * max(precisions[k:])
        before = recall
    return total


@pytest.mark.parametrize("seed", [3, 4])
def test_voc_equals_the_slow_reference(seed):
    pairs = random_images(seed, difficult=True)
    scores = score(pairs, CLASSES)
    for label, name in enumerate(CLASSES[1:4], start=1):
        assert scores.voc_ap50_11point[name] == pytest.approx(slow_voc(pairs, label, True))
        assert scores.voc_ap50_area[name] == pytest.approx(slow_voc(pairs, label, False))
    assert scores.voc_ap50_area["d"] is None


def test_voc_curves_by_hand():
    # Two truths; right, wrong, right: (recall, precision) = (.5, 1), (.5, .5), (1, 2/3).
    recall, precision = np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3])
    assert area(recall, precision) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert eleven_point(recall, precision) == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)


BOX, OTHER, FAR = [0, 0, 100, 100], [0, 0, 100, 60], [200, 200, 300, 300]


def test_perfect_and_by_hand():
    perfect = score([(detections([BOX, FAR], [0.9, 0.8], [1, 2]), truth([BOX, FAR], [1, 2]))])
    assert perfect.mAP == pytest.approx(1) and perfect.voc_map50_area == 1
    assert perfect.flat()["mAP50"] == pytest.approx(1)
    assert perfect.confusion.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert np.allclose(perfect.precision["a"], 1) and len(perfect.precision["a"]) == 101
    # IoU 0.6: right at .5, .55 and .6 of the ten thresholds.
    partly = score([(detections([OTHER], [0.9], [1]), truth([BOX], [1]))])
    assert partly.mAP50 == pytest.approx(1) and partly.mAP75 == 0
    assert partly.mAP == pytest.approx(0.3)
    assert partly.per_class["b"] is None and partly.per_class["a"][0] == pytest.approx(0.3)
    assert np.isnan(partly.small) and partly.large == pytest.approx(0.3)
    assert "small" not in partly.flat()


def test_difficult_is_ignored_once():
    true = truth([BOX, FAR], [1, 1], difficult=[True, False])
    once = score([(detections([BOX, FAR], [0.9, 0.8], [1, 1]), true)])
    assert once.mAP == pytest.approx(1) and once.voc_ap50_area["a"] == 1
    assert once.confusion.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    missed = score([(detections([FAR], [0.8], [1]), true)])
    assert missed.mAP == pytest.approx(1) and pytest.approx(1) == missed.AR100
    # Not as a crowd: a box inside the difficult one, of small IoU, is wrong.
    inside = score([(detections([[0, 0, 30, 30], FAR], [0.9, 0.8], [1, 1]), true)])
    assert inside.mAP == pytest.approx(0.5)


def test_crowd_takes_any_number():
    true = truth([[0, 0, 150, 150], FAR], [1, 1], crowd=[True, False])
    boxes = [[0, 0, 30, 30], [50, 50, 90, 90], FAR]
    scores = score([(detections(boxes, [0.9, 0.85, 0.8], [1, 1, 1]), true)])
    assert scores.mAP == pytest.approx(1)
    assert scores.confusion.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_areas_of_masks_sort_the_sizes():
    found, boxes = detections([BOX], [0.9], [1]), np.array([BOX], np.float32)
    small = BoxTruth(boxes, np.array([1]), areas=np.array([500.0]))
    scores = score([(found, small)])
    assert scores.small == pytest.approx(1) and np.isnan(scores.large)


def test_confusion_by_hand():
    found = detections([BOX, FAR, [400, 0, 450, 50]], [0.9, 0.1, 0.9], [2, 1, 1])
    matrix = score([(found, truth([BOX, FAR], [1, 1]))]).confusion
    # BOX: a taken for b; FAR: below the threshold, so missed; the third: invented.
    assert matrix.tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 0]]


def test_only_the_best_hundred_count():
    boxes = [FAR] * 100 + [BOX]
    scores = score([(detections(boxes, [0.9] * 100 + [0.1], [1] * 101), truth([BOX], [1]))])
    assert scores.mAP == 0 and scores.voc_ap50_area["a"] == 0


def test_nothing_found_nothing_there_nothing_at_all():
    none, empty = detections([], [], []), truth([], [])
    assert score([(none, truth([BOX], [1]))]).mAP == 0
    assert score([(none, truth([BOX], [1]))]).confusion.tolist()[1] == [1, 0, 0]
    invented = score([(detections([BOX], [0.9], [1]), empty)])
    assert np.isnan(invented.mAP) and invented.flat() == {}
    assert invented.per_class == {"a": None, "b": None}
    assert invented.to_plain()["mAP"] is None
    assert np.isnan(score([]).mAP)
    assert score([(none, empty), (detections([BOX], [1.0], [1]), truth([BOX], [1]))]).mAP > 0.99


def test_says_nothing(capfd, caplog):
    caplog.set_level("DEBUG")
    score(random_images(0), CLASSES)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]


def test_merged_parts_are_the_whole():
    pairs = random_images(5)
    metric, first, second = (DetectionMetric(CLASSES) for _ in range(3))
    for k, (found, true) in enumerate(pairs):
        (second if k % 2 else first).update([found], [true])
    metric.merge([first.results, second.results])
    assert all(kept.truth is true for kept, (_, true) in zip(metric.results, pairs))
    assert metric.compute().mAP == pytest.approx(score(pairs, CLASSES).mAP, abs=1e-12)


def test_iou_by_hand():
    iou = pairwise_iou(np.array([BOX, FAR]), np.array([OTHER]))
    assert iou.tolist() == [[pytest.approx(0.6)], [0.0]]
    inside = np.array([[0, 0, 10, 10]])
    assert pairwise_iou(inside, np.array([BOX]), np.array([True])).tolist() == [[1.0]]


def test_the_best_threshold_of_each_class_and_errors_of_an_image() -> None:
    boxes = np.array([[10.0 * i, 0, 10 * i + 8, 8] for i in range(4)])
    truth = BoxTruth(boxes=boxes, labels=np.array([1, 1, 2, 2]))
    far = boxes + [0, 50, 0, 50]
    found: Detections = {
        "boxes": torch.tensor(np.concatenate([boxes, far[:2], boxes[2:3] + [0, 5, 0, 5]])),
        "scores": torch.tensor([0.9, 0.6, 0.8, 0.7, 0.3, 0.2, 0.1]),
        "labels": torch.tensor([1, 1, 2, 1, 1, 2, 2]),
    }
    metric = DetectionMetric(["__background__", "a", "b"])
    metric.update([found], [truth])
    scores = metric.compute(full=True)
    best = best_thresholds(scores.score_curves())
    assert 0.3 < best["a"]["threshold"] <= 0.6 and best["a"]["recall"] == 1
    assert 0.2 < best["b"]["threshold"] <= 0.8 and best["b"]["recall"] == 0.5
    assert best["b"]["precision"] == 1 and set(best) == {"all", "a", "b"}
    assert scores.to_plain()["best_threshold"] == best
    right = {"errors": 3, "objects": 4, "right": 3, "confused": 1, "misplaced": 0, "false": 2}
    assert image_errors(metric.results[0], 0.15) == {**right, "missed": 0}
    (result,) = metric.results
    low = ImageResult(result.boxes[-1:], result.scores[-1:], result.labels[-1:], truth)
    some = image_errors(low, 0.0)
    assert (some["misplaced"], some["missed"], some["false"]) == (1, 3, 0)
