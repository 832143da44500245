"""Progress of an epoch: a bar on a terminal, else a line every ten seconds."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping

log = logging.getLogger(__name__)

LINE_SECONDS = 10.0


class Progress:
    """Shows batches done, losses and images a second; silent when ``enabled`` is False."""

    def __init__(self, title: str, total: int, start: int = 0, enabled: bool = True) -> None:
        self.title, self.total, self.done, self.start = title, total, start, start
        self.images = 0
        self.began = self.shown = time.monotonic()
        self.enabled = enabled
        self.bar = None
        if enabled and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(
                desc=title, total=total, initial=start, file=sys.stderr, leave=False, unit="batch"
            )

    def advance(self, images: int) -> None:
        """One batch of so many images (over all processes) is done."""
        self.done += 1
        self.images += images
        if self.bar is not None:
            self.bar.update()

    @staticmethod
    def now() -> float:
        """The clock of ``began``, in seconds."""
        return time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self.now() - self.began

    @property
    def rate(self) -> float:
        """Images a second since the start."""
        return self.images / max(1e-9, self.seconds)

    def show(self, losses: Mapping[str, float]) -> None:
        """Show the mean losses so far."""
        if not self.enabled:
            return
        text = " ".join(f"{name} {value:.4g}" for name, value in losses.items())
        if self.bar is not None:
            self.bar.set_postfix_str(f"{text}, {self.rate:.1f} img/s")
            return
        now = time.monotonic()
        if now - self.shown >= LINE_SECONDS:
            self.shown = now
            done = self.done - self.start
            left = (now - self.began) / max(1, done) * (self.total - self.done)
            log.info(
                "%s: %d/%d, %s, %.1f img/s, %d:%02d left",
                *(self.title, self.done, self.total, text, self.rate),
                *divmod(round(left), 60),
            )

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()
