"""Stopwatches that are put around code without changing it.

Imports nothing of the project: the driver of the tutorial project, whose package is called
``src`` as well, uses them too.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Clock:
    """Adds up seconds, the process's processor seconds (all threads), calls and items."""

    def __init__(self, wait: Callable[[], object] | None = None) -> None:
        self.wait = wait  # e.g. torch.cuda.synchronize
        self.reset()

    def reset(self) -> None:
        """Begin again at nothing."""
        self.seconds, self.cpu, self.calls, self.items = 0.0, 0.0, 0, 0
        self._began, self._cpu = 0.0, 0.0

    def start(self) -> None:
        """Begin a stretch."""
        if self.wait:
            self.wait()
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def stop(self, items: int = 1) -> None:
        """End a stretch in which so many items were done."""
        if self.wait:
            self.wait()
        self.seconds += time.perf_counter() - self._began
        self.cpu += time.process_time() - self._cpu
        self.calls += 1
        self.items += items

    @contextmanager
    def running(self, items: int = 1) -> Iterator[None]:
        """Count what is inside."""
        self.start()
        try:
            yield
        finally:
            self.stop(items)

    @property
    def rate(self) -> float:
        """Items a second."""
        return self.items / self.seconds if self.seconds else 0.0


def watch_forwards(model: Any, clock: Clock, training: bool = False) -> None:
    """Count the forward passes of a torch module in eval mode (or in training mode).

    Items are the images of the first argument, a list or a batch.
    """

    def before(module: Any, args: Any) -> None:
        if module.training == training:
            clock.start()

    def after(module: Any, args: Any, output: Any) -> None:
        if module.training == training:
            clock.stop(len(args[0]))

    model.register_forward_pre_hook(before)
    model.register_forward_hook(after)


def watch_method(owner: Any, name: str, clock: Clock) -> None:
    """Count the calls of a method of a class, or of a function of a module."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def timed(*args: Any, **kwargs: Any) -> Any:
        with clock.running():
            return original(*args, **kwargs)

    setattr(owner, name, timed)


def save(path: Path, content: Any) -> None:
    """Write JSON so that a kill leaves the whole file or none."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
