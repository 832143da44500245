"""What detection from Python answers for one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..predict.result import Result, require_supervision
from ..visualise.draw import draw_detections


@dataclass
class DetectionResult(Result):
    """Objects of an image, best first: boxes float32 [N, 4] xyxy in its pixels, scores float32
    [N] in [0, 1], labels int64 [N] from 1 (names[0] is ``__background__``); ids int64 [N] of a
    video's objects, from 1 (0: none so far), where they are tracked."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    ids: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def draw(self) -> np.ndarray:
        """The image with boxes, names and scores."""
        found = self.boxes, self.labels, self.names, self.scores, self.ids
        return draw_detections(self.image, *found)

    def arrays(self) -> dict[str, np.ndarray]:
        """Boxes, scores and labels."""
        found = {"boxes": self.boxes, "scores": self.scores, "labels": self.labels}
        return found if self.ids is None else {**found, "ids": self.ids}

    def to_dict(self) -> dict[str, Any]:
        """detections: a list of {label, name, score, box [x1, y1, x2, y2]}, and
        track_id where objects are tracked."""
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist())
        ids = [] if self.ids is None else self.ids.tolist()
        return {
            "width": self.image.shape[1],
            "height": self.image.shape[0],
            "detections": [
                {
                    "label": label,
                    "name": self.names[label],
                    "score": round(score, 5),
                    "box": [round(side, 2) for side in box],
                    **({"track_id": ids[row]} if ids else {}),
                }
                for row, (box, score, label) in enumerate(rows)
            ],
        }

    def to_supervision(self) -> Any:
        """As ``supervision.Detections``; class_id is the label, from 1; tracker_id, where objects
        are tracked, -1 for what has none so far, as ``trackers`` has it."""
        return require_supervision().Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.labels,
            tracker_id=None if self.ids is None else np.where(self.ids > 0, self.ids, -1),
            data={"class_name": np.array([self.names[label] for label in self.labels], dtype=str)},
        )
