"""How far a long run is: steps done, rate, time left."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping

log = logging.getLogger(__name__)


def clock(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """One line that renews itself on a terminal; in a log file, a line every 15 seconds.

    title: what is being done; total: its steps (None: unknown); unit: what the rate counts;
    start: steps that were done before; enabled: False is silent.
    """

    def __init__(
        self,
        title: str,
        total: int | None,
        *,
        unit: str = "images",
        start: int = 0,
        enabled: bool = True,
    ) -> None:
        self.title, self.total, self.unit, self.enabled = title, total, unit, enabled
        self.start = self.done = start
        self.count = 0
        self._note = ""
        self._live = sys.stderr.isatty()
        self._began = time.monotonic()
        self._next = self._began + self._pause
        self._width = 0

    @property
    def _pause(self) -> float:
        return 0.2 if self._live else 15.0

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    @property
    def rate(self) -> float:
        """Units a second since the start."""
        return self.count / max(1e-9, self.seconds)

    def line(self) -> str:
        """``epoch 2/10: 120/300, loss 0.31, 9.8 images/s, 0:18 left``."""
        parts = [f"{self.title}: {self.done}{f'/{self.total}' if self.total else ''}"]
        parts += [self._note] if self._note else []
        parts += [f"{self.rate:.1f} {self.unit}/s"]
        if self.total and self.done > self.start:
            each = self.seconds / (self.done - self.start)
            parts += [f"{clock((self.total - self.done) * each)} left"]
        return ", ".join(parts)

    @property
    def due(self) -> bool:
        """Whether it is time to say something."""
        return self.enabled and time.monotonic() >= self._next

    def advance(self, count: int = 1) -> None:
        """A step of ``count`` units is done; says so when it is time."""
        self.done += 1
        self.count += count
        if self.due:
            self._say()

    def show(self, values: Mapping[str, float]) -> None:
        """Figures to stand in the line from now on."""
        self._note = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self.due:
            self._say()

    def _say(self) -> None:
        self._next = time.monotonic() + self._pause
        if not self._live:
            log.info("%s", self.line())
            return
        text = self.line()
        sys.stderr.write("\r" + text.ljust(self._width))
        sys.stderr.flush()
        self._width = len(text)

    def close(self) -> None:
        """Clear the line on a terminal."""
        if self.enabled and self._live and self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
