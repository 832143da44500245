"""How far a run is: frames, rate, time left."""

from __future__ import annotations

import logging
import sys
import time

log = logging.getLogger(__name__)


def clock(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """One line that renews itself on a terminal; in a log file, a line every 15 seconds."""

    def __init__(self, unit: str, total: int | None) -> None:
        self._unit = unit
        self._total = total
        self._live = sys.stderr.isatty()
        self._start = time.monotonic()
        self._next = self._start + (0.2 if self._live else 15.0)
        self._width = 0
        self.done = 0

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def line(self) -> str:
        """``120/300 frames, 9.8 frames/s, 0:18 left``."""
        rate = self.done / max(self.seconds, 1e-9)
        text = f"{self.done}{f'/{self._total}' if self._total else ''} {self._unit}"
        text += f", {rate:.1f} {self._unit}/s"
        if self._total and self.done:
            text += f", {clock((self._total - self.done) / rate)} left"
        return text

    def step(self, count: int = 1) -> None:
        """Count what was done, and say so when it is time."""
        self.done += count
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (0.2 if self._live else 15.0)
        if self._live:
            text = self.line()
            sys.stderr.write("\r" + text.ljust(self._width))
            sys.stderr.flush()
            self._width = len(text)
        else:
            log.info("%s", self.line())

    def close(self) -> None:
        """Clear the line on a terminal."""
        if self._live and self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
