"""Seconds of the detection metric against torchmetrics: python -m benchmarks.evaluation [images]"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch

from src.metrics.detection import BoxTruth, DetectionMetric


def main(images: int = 2000, classes: int = 20, truths: int = 10, found: int = 100) -> None:
    """Random boxes, ``found`` detections and ``truths`` truths an image."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    names = [str(k) for k in range(classes)]
    pairs = []
    for _ in range(images):
        corner = rng.uniform(0, 400, (truths, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(10, 200, (truths, 2))], 1)
        labels = rng.integers(1, classes + 1, truths)
        source = rng.integers(0, truths, found)
        near = boxes[source] + rng.normal(0, 8, (found, 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        kinds = np.where(rng.random(found) < 0.7, labels[source], rng.integers(1, classes + 1))
        predicted = {
            "boxes": torch.from_numpy(near).float(),
            "scores": torch.rand(found),
            "labels": torch.from_numpy(kinds),
        }
        pairs.append((predicted, BoxTruth(boxes.astype(np.float32), labels)))
    for full in (False, True):
        start = time.perf_counter()
        metric = DetectionMetric(names)
        for predicted, truth in pairs:
            metric.update([predicted], [truth])
        scores = metric.compute(full=full)
        seconds = time.perf_counter() - start
        print(f"ours{' (full)' if full else '':18s} {seconds:6.2f} s  mAP {scores.mAP:.6f}")
    from torchmetrics.detection import MeanAveragePrecision

    for backend in ("faster_coco_eval",):
        start = time.perf_counter()
        theirs = MeanAveragePrecision(backend=backend, class_metrics=True)
        for predicted, truth in pairs:
            target = {
                "boxes": torch.from_numpy(truth.boxes),
                "labels": torch.from_numpy(truth.labels),
            }
            theirs.update([predicted], [target])
        value = theirs.compute()["map"].item()
        seconds = time.perf_counter() - start
        print(f"torchmetrics {backend:16s} {seconds:6.2f} s  mAP {value:.6f}")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]))
