"""Ctrl-C and SIGTERM: asked for once, the run stops where it can save; twice, at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class StopRequest:
    """A context in which SIGINT and SIGTERM set ``wanted`` instead of ending the process.

    Data workers that are forked inside it inherit the handler, and so live on until the loop
    has stopped.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._at_once = False
        self._asked_at = 0.0
        self._before: dict[int, Any] = {}

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, there is nothing to wait for: the first signal is a KeyboardInterrupt."""
        if self.wanted:
            raise KeyboardInterrupt
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # A terminal and torchrun may both pass on the same Ctrl-C.
        second = self.wanted and time.monotonic() - self._asked_at > 1
        if not self.wanted:
            self.wanted, self._asked_at = True, time.monotonic()
        if second or self._at_once:
            raise KeyboardInterrupt
