"""Mask AP is pycocotools' on the same predictions."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from src.core.structures import Size
from src.data.instances import outlines
from src.data.instances.records import Objects
from src.metrics.confusion import image_errors
from src.metrics.detection import DetectionMetric
from src.segmentation.object_evaluation import scored
from src.segmentation.objects import Instances

NAMES, SIZE = ["a", "b", "c"], Size(240, 180)


def discs(rng: np.random.Generator, count: int) -> np.ndarray:
    rows, columns = np.indices((SIZE.height, SIZE.width))
    x, y = rng.uniform(0, 1, (2, count)) * np.array([[SIZE.width], [SIZE.height]])
    radius = rng.uniform(3, 80, count)
    masks = [(columns - a) ** 2 + (rows - b) ** 2 <= c**2 for a, b, c in zip(x, y, radius)]
    return np.stack(masks) if masks else np.zeros((0, SIZE.height, SIZE.width), bool)


def test_figures_of_pycocotools() -> None:
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    rng = np.random.default_rng(1)
    metric = DetectionMetric(NAMES)
    truths, results, images = [], [], []
    for image in range(1, 25):
        count = int(rng.integers(0, 6)) if image > 2 else 0
        masks, labels = discs(rng, count), rng.integers(0, 3, count)
        crowd = rng.random(count) < 0.15
        moved = np.concatenate([np.roll(masks, 2, axis=2), discs(rng, 3)])
        guessed = np.concatenate([labels, rng.integers(0, 3, 3)])
        found = Instances(moved, rng.random(len(moved)).astype(np.float32), guessed)
        order = np.argsort(-found.scores)
        found = found.some(order)
        truth = Objects(outlines.to_rles(masks), labels, crowd, SIZE)
        metric.results.append(scored(found, truth))
        images.append({"id": image, "width": SIZE.width, "height": SIZE.height})
        for rle, label, flag in zip(truth.rles, labels, crowd):
            truths.append({
                "id": len(truths) + 1, "image_id": image, "category_id": int(label) + 1,
                "segmentation": rle, "area": float(outlines.mask_areas([rle])[0]),
                "iscrowd": int(flag), "bbox": [0, 0, 1, 1],
            })  # fmt: skip
        results += [
            {"image_id": image, "category_id": int(label) + 1, "segmentation": rle, "score": score}
            for rle, label, score in zip(
                outlines.to_rles(found.masks), found.labels, found.scores.astype(float).tolist()
            )
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        table = coco.COCO()
        categories = [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)]
        table.dataset = {"images": images, "annotations": truths, "categories": categories}
        table.createIndex()
        theirs = cocoeval.COCOeval(table, table.loadRes(results), "segm")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    scores = metric.compute(full=True, confusion_threshold=0.3)
    names = ("mAP", "mAP50", "mAP75", "small", "medium", "large")
    assert 0.1 < scores.mAP < 0.9
    for name, expected in zip(names, theirs.stats[:6]):
        assert getattr(scores, name) == pytest.approx(expected, abs=1e-9), name
    assert pytest.approx(theirs.stats[8], abs=1e-9) == scores.AR100
    # The confusion matrix and the errors of images count overlap of masks too.
    right = [image_errors(one, 0.3)["right"] for one in metric.results]
    assert scores.confusion is not None and np.trace(scores.confusion) == sum(right) > 10


def test_masks_in_one_box_are_told_apart() -> None:
    """Two triangles that fill one square: their boxes are the same."""
    lower = np.tri(40, dtype=bool)[None]
    upper = ~lower
    truth = Objects(outlines.to_rles(lower), np.array([0]), np.zeros(1, bool), Size(40, 40))
    for masks, figure in ((lower, 1.0), (upper, 0.0)):
        metric = DetectionMetric(NAMES)
        found = Instances(masks, np.ones(1, np.float32), np.array([0]))
        metric.results.append(scored(found, truth))
        assert metric.compute(full=True).mAP == figure
        assert metric.compute(full=True).voc_map50_area == figure
