"""Tracking on a drawn scene whose truth is known: HOTA, IDF1 and id switches, by ``trackers``.

    python -m benchmarks.multi --tracking

Twelve squares cross a picture of 640x360 for ten seconds at 30 frames a second, bounce off its
sides and hide each other. What a detector would say is made of the truth: corners moved by up to
two pixels, one box in twenty missing, what is half hidden at a score of 0.15, what is hidden more
than that missing, and a false box now and then. So the figures are of the tracker, not of a model.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch

from src.core.structures import Detections, Size

log = logging.getLogger(__name__)
SIZE, RATE, SECONDS, OBJECTS = Size(640, 360), 30, 10, 12
Truth = list[tuple[np.ndarray, np.ndarray]]  # of each frame: ids [N], boxes [N, 4]


def drawn_scene(seed: int = 0) -> Truth:
    """The truth; later ids lie on top."""
    rng = np.random.default_rng(seed)
    sides = rng.uniform(30, 70, OBJECTS)
    places = rng.uniform(0, 1, (OBJECTS, 2)) * (np.array(SIZE) - sides[:, None])
    speeds = rng.uniform(40, 160, (OBJECTS, 2)) * rng.choice([-1, 1], (OBJECTS, 2)) / RATE
    frames = []
    for _ in range(RATE * SECONDS):
        places += speeds
        for axis in (0, 1):
            limit = SIZE[axis] - sides
            out = (places[:, axis] < 0) | (places[:, axis] > limit)
            speeds[out, axis] *= -1
            places[:, axis] = np.clip(places[:, axis], 0, limit)
        boxes = np.concatenate([places, places + sides[:, None]], axis=1)
        frames.append((np.arange(1, OBJECTS + 1), boxes))
    return frames


def hidden_share(boxes: np.ndarray) -> np.ndarray:
    """Of each box the largest share that one above it covers."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    above = np.triu(np.ones((len(boxes), len(boxes)), bool), 1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return (shared * above).max(axis=1) / area


def detect(truth: Truth, seed: int = 1) -> list[Detections]:
    """What a detector would say of each frame (see above)."""
    rng = np.random.default_rng(seed)
    found = []
    for _, boxes in truth:
        hidden = hidden_share(boxes)
        scores = np.where(hidden > 0.25, 0.15, rng.uniform(0.5, 0.95, len(boxes)))
        kept = (hidden <= 0.5) & (rng.random(len(boxes)) > 0.05)
        noisy = boxes[kept] + rng.uniform(-2, 2, (int(kept.sum()), 4))
        scores = scores[kept]
        if rng.random() < 0.05:
            left, top = rng.uniform(0, 300, 2)
            noisy = np.concatenate([noisy, [[left, top, left + 50, top + 50]]])
            scores = np.append(scores, 0.4)
        order = np.argsort(-scores)
        one: Detections = {
            "boxes": torch.from_numpy(noisy[order]).float(),
            "scores": torch.from_numpy(scores[order]).float(),
            "labels": torch.ones(len(order), dtype=torch.int64),
        }
        found.append(one)
    return found


def track(found: list[Detections], every: int = 1, low: bool = True) -> Truth:
    """Ids and boxes of each frame; low: whether boxes below the threshold are fed in."""
    from src.predict.results import keep_above
    from src.predict.tracking import BoxTracker

    tracker = BoxTracker(0.25)
    frames = []
    for number, one in enumerate(found):
        shown = (one if low else keep_above(one, 0.25)) if number % every == 0 else None
        answer = tracker.follow(shown, number / RATE, SIZE)
        named = answer["ids"] > 0
        frames.append((answer["ids"][named].numpy(), answer["boxes"][named].numpy()))
    return frames


def scores(truth: Truth, tracked: Truth) -> dict[str, float]:
    """HOTA and IDF1 in per cent, id switches, and how many ids there were."""
    from trackers.eval import (
        box_iou,
        compute_clear_metrics,
        compute_hota_metrics,
        compute_identity_metrics,
    )

    names = sorted({int(name) for ids, _ in tracked for name in ids})
    place = {name: index for index, name in enumerate(names)}
    given: Any = (
        [ids - 1 for ids, _ in truth],
        [np.array([place[int(name)] for name in ids], int) for ids, _ in tracked],
        [
            box_iou(boxes.reshape(-1, 4), found.reshape(-1, 4), box_format="xyxy")
            for (_, boxes), (_, found) in zip(truth, tracked)
        ],
    )
    return {
        "HOTA": 100 * float(compute_hota_metrics(*given)["HOTA"]),
        "IDF1": 100 * float(compute_identity_metrics(*given)["IDF1"]),
        "switches": float(compute_clear_metrics(*given)["IDSW"]),
        "ids": float(len(names)),
    }


def track_drawn(seeds: int = 5) -> None:
    """A row a way of tracking, means over scenes."""
    log.info("%-34s %6s %6s %9s %5s", "", "HOTA", "IDF1", "switches", "ids")
    ways: list[tuple[str, dict[str, Any]]] = [
        ("--track", {}),
        ("without boxes below the threshold", {"low": False}),
        *((f"--track --every {every}", {"every": every}) for every in (2, 3, 5, 10)),
    ]
    for name, how in ways:
        rows = []
        for seed in range(seeds):
            truth = drawn_scene(seed)
            rows.append(scores(truth, track(detect(truth, seed + 100), **how)))
        means = [float(np.mean([row[key] for row in rows])) for key in rows[0]]
        log.info("%-34s %6.1f %6.1f %9.1f %5.1f", name, *means)
