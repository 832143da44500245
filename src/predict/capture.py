"""Videos, cameras and network streams, read by OpenCV (upright, RGB)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import cv2
import numpy as np

from ..core.errors import UserError
from ..core.structures import Size

FALLBACK_RATE = Fraction(30)
TIMEOUT_MS = 10_000  # for network addresses: opening, and each read


class Frame(NamedTuple):
    """One frame: its number from 0, uint8 [H, W, 3] RGB, and its time from the start."""

    number: int
    image: np.ndarray
    seconds: float


class VideoReader:
    """A video file, a camera index (``0``), or an rtsp:// or http:// address.

    size, rate (frames a second as a fraction: 30000/1001 stays 30000/1001), frames (their
    number, None when unknown or endless), live (a camera or an endless stream), steady (False:
    the rate says nothing, the frames' times do), codec (its four letters). ``fault`` tells after
    the iteration whether the file broke off. Raises UserError when it cannot be opened or holds no
    frame.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.name = source_name(source)
        camera = source.isdecimal() and not Path(source).exists()
        network = re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", source) is not None
        self._capture = _open(source, camera, network)
        done, self._first = self._capture.read()
        if not done or self._first is None:
            self._capture.release()
            raise UserError(
                f"{source} opens, but no frame can be decoded; is it whole, and a video? "
                f"'ffmpeg -i {source} out.mp4' may repair or convert it"
            )
        self.size = Size(self._first.shape[1], self._first.shape[0])
        code = int(self._capture.get(cv2.CAP_PROP_FOURCC))
        self.codec = code.to_bytes(4, "little", signed=code < 0).decode("ascii", "replace").strip()
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.steady = math.isfinite(rate) and 0 < rate <= 250
        self.rate = Fraction(rate).limit_denominator(1001) if self.steady else FALLBACK_RATE
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frames = int(count) if 0 < count < 1e9 and not camera else None
        self.live = camera or (network and self.frames is None)
        self.steady = self.steady and not self.live
        self.fault: str | None = None

    @property
    def first_image(self) -> np.ndarray:
        """The first frame, uint8 [H, W, 3] RGB."""
        return cv2.cvtColor(self._first, cv2.COLOR_BGR2RGB)

    def __iter__(self) -> Iterator[Frame]:
        """The frames, once, in order; lets go of the file or camera at the end."""
        number, seconds = 0, 0.0
        start = cv2.getTickCount()
        image = self._first
        try:
            while True:
                if self.live:
                    seconds = (cv2.getTickCount() - start) / cv2.getTickFrequency()
                elif self.steady:
                    seconds = float(number / self.rate)
                else:
                    seconds = max(seconds, self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
                yield Frame(number, cv2.cvtColor(image, cv2.COLOR_BGR2RGB), seconds)
                position = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                number += 1
                done, image = self._capture.read()
                if not done or image is None:
                    self.fault = self._broken_off(number, position)
                    return
        finally:
            self._capture.release()

    def _broken_off(self, number: int, position: float) -> str | None:
        """What to say when fewer frames came than the file promises. Counts of some containers
        are estimates, so the last frame's time must fall short as well."""
        if self.live or self.frames is None:
            return None
        missing = self.frames - number
        rate = self._capture.get(cv2.CAP_PROP_FPS) or float(self.rate)
        short = (self.frames - 1) / rate - position
        if missing <= max(2, 0.01 * self.frames) or short <= 2 / rate:
            return None
        return (
            f"{self.source} breaks off after {number} of {self.frames} frames: it is damaged or "
            "was not copied to its end; what could be read was processed"
        )


def source_name(source: str) -> str:
    """A stem for the results' files: the file's own, camera_0, or the end of the address."""
    if source.isdecimal() and not Path(source).exists():
        return f"camera_{source}"
    if "://" in source:
        parts = urlsplit(source)
        return re.sub(r"[^\w.-]+", "_", Path(parts.path).stem or parts.hostname or "stream")
    return Path(source).stem


def _open(source: str, camera: bool, network: bool) -> cv2.VideoCapture:
    """Open the source, or say why not."""
    if camera:
        capture = cv2.VideoCapture(int(source))
        if not capture.isOpened():
            raise UserError(
                f"camera {source} does not open; is it connected, free, and may you use it "
                "(on Linux: ls -l /dev/video*)?"
            )
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return capture
    if network:
        timeouts = [
            *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT_MS),
            *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT_MS),
        ]
        capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, timeouts)
        if not capture.isOpened():
            raise UserError(f"cannot open {source}: wrong address, no answer, or not a video")
        return capture
    path = Path(source)
    if not path.exists():
        raise UserError(f"no such video: {source}")
    if path.is_dir():
        raise UserError(f"{source} is a folder; name one video in it")
    # FFmpeg alone: other readers of cv2 take '%' in a name for a sequence of pictures.
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise UserError(
            f"cannot read {source} as a video: not a video, or cut off before its index; "
            f"'ffmpeg -i {source}' says more"
        )
    return capture
