"""Ids for the boxes of a video: ByteTrack (https://arxiv.org/abs/2110.06864) by ``trackers``."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import torch

from ..core.errors import UserError
from ..core.structures import Detections, Size

_NOMINAL = 30.0  # frames a second that the filter's noise is meant for; frames come with times
_LOST = 1.0  # seconds that an object may be out of sight, or so many key frames
_KEY_FRAMES = 2.5
_LOW = 0.1  # the paper's: what scores less is no hint of an object


def floor_of(threshold: float) -> float:
    """The score from which on boxes are shown to the tracker, where --threshold is to be
    reported: ByteTrack follows an object through frames that the detector is unsure of."""
    return min(_LOW, threshold / 2)


class BoxTracker:
    """Ids for detections, frame by frame.

    threshold: the least score to report; boxes that score less may go on with a track, and begin
    none. An object gets its id (from 1) when it is seen for the second time. Boxes of all classes
    are tracked together. UserError when ``trackers`` is not installed.
    """

    def __init__(self, threshold: float) -> None:
        try:
            from supervision import Detections as Boxes
            from trackers import ByteTrackTracker
        except ImportError as error:
            raise UserError(
                f"--track needs the package trackers ({error}): python3 bootstrap.py install, or "
                "pip install 'supervision>=0.31,<1' rich && pip install --no-deps "
                "'trackers>=2.6.1,<3' (with its dependencies it brings a second OpenCV, which "
                "breaks the headless one)"
            ) from None
        self._boxes: Any = Boxes
        self._threshold = threshold
        self._tracker = ByteTrackTracker(
            frame_rate=_NOMINAL,
            track_activation_threshold=threshold,
            high_conf_det_threshold=threshold,
        )
        self._seconds = -1.0
        self._last: Detections = _of(np.zeros((0, 4)), np.zeros(0), np.zeros(0), np.zeros(0))

    def update(self, found: Detections, seconds: float) -> Detections:
        """Detections of the next frame, at its time, with ``ids`` (0: none so far): those that
        score the threshold or more, and those of less that belong to an object with an id."""
        seconds = max(seconds, self._seconds + 1e-3)
        if self._seconds >= 0:  # key frames may be far apart
            lost = max(_LOST, _KEY_FRAMES * (seconds - self._seconds))
            self._tracker.maximum_time_without_update = lost
        self._seconds = seconds
        boxes = self._boxes(
            xyxy=found["boxes"].numpy().astype(np.float64).reshape(-1, 4),
            confidence=found["scores"].numpy().astype(np.float64),
            data={"row": np.arange(len(found["scores"]))},
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tracked: Any = self._tracker.update(boxes, timestamp=seconds)
        ids = torch.zeros(len(found["scores"]), dtype=torch.int64)
        if len(tracked):
            ids[torch.from_numpy(tracked.data["row"])] = torch.from_numpy(tracked.tracker_id + 1)
        kept = (found["scores"] >= self._threshold) | (ids > 0)
        self._last = {
            "boxes": found["boxes"][kept],
            "scores": found["scores"][kept],
            "labels": found["labels"][kept],
            "ids": ids[kept],
        }
        return self._last

    def between(self, seconds: float, size: Size) -> Detections:
        """The last frame's detections at a later time, in an image of this size: boxes with an id
        as the Kalman filter expects them, others as they were.

        The tracker is not told of the frame: an empty update would end every object that has no
        id so far, and age the others.
        """
        boxes = self._last["boxes"].clone()
        steps = max(0.0, seconds - self._seconds) * _NOMINAL
        rows = {int(name): row for row, name in enumerate(self._last["ids"].tolist()) if name}
        for track in self._tracker.tracks:
            row = rows.get(track.tracker_id + 1)
            if row is not None and steps > 0:
                filter_of = copy.deepcopy(track.state_estimator)
                filter_of.predict(steps, _NOMINAL)
                boxes[row] = torch.from_numpy(filter_of.state_to_bbox()).to(boxes)
        boxes[:, 0::2] = boxes[:, 0::2].clamp(0, size.width)
        boxes[:, 1::2] = boxes[:, 1::2].clamp(0, size.height)
        return {**self._last, "boxes": boxes}

    def follow(self, found: Detections | None, seconds: float, size: Size) -> Detections:
        """``update``, or without detections ``between``."""
        return self.between(seconds, size) if found is None else self.update(found, seconds)


def _of(*arrays: np.ndarray) -> Detections:
    boxes, scores, labels, ids = (torch.from_numpy(array) for array in arrays)
    return {
        "boxes": boxes.float(),
        "scores": scores.float(),
        "labels": labels.long(),
        "ids": ids.long(),
    }
