"""Work that runs ahead in threads: bounded, stoppable, and its errors reach the consumer."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Iterator[T], Generic[T]):
    """Iterates ``source`` in a thread of its own, at most ``depth`` items ahead of the consumer.

    An exception in the source is raised again in the consumer, after the items before it.
    ``newest`` (live cameras): the source never waits; the oldest item is dropped instead.
    After ``cancel()`` the iteration ends for the consumer, and the thread at its next item.
    """

    def __init__(
        self, source: Iterable[T], depth: int, *, newest: bool = False, name: str = "ahead"
    ) -> None:
        assert depth >= 1
        self._source = source
        self._depth = depth
        self._newest = newest
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._ended = False
        self._cancelled = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        error: BaseException | None = None
        iterator, self._source = iter(self._source), ()
        try:
            for item in iterator:
                if not self._put(item):
                    break
        except BaseException as caught:  # noqa: BLE001 - raised again by the consumer
            error = caught
        finally:
            close = getattr(iterator, "close", None)
            if close is not None and not isinstance(iterator, Ahead):
                close()  # a generator lets go of its file or camera in its own thread
            with self._changed:
                self._error, self._ended = error, True
                self._changed.notify_all()

    def _put(self, item: T) -> bool:
        with self._changed:
            while len(self._items) >= self._depth and not self._cancelled:
                if self._newest:
                    self._items.popleft()
                else:
                    self._changed.wait()
            if self._cancelled:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def __next__(self) -> T:
        with self._changed:
            while not self._items and not self._ended and not self._cancelled:
                self._changed.wait()
            if self._cancelled:
                raise StopIteration
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            raise StopIteration

    def cancel(self) -> None:
        """End the iteration now, for both sides; what is queued is dropped."""
        with self._changed:
            self._cancelled = True
            self._items.clear()
            self._changed.notify_all()

    def join(self, timeout: float) -> bool:
        """Wait for the thread; True when it has ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()


def stop_all(stages: Iterable[Ahead], timeout: float = 5.0) -> bool:
    """Cancel a chain of stages and wait for their threads; False when one is still stuck."""
    stages = list(stages)
    for stage in stages:
        stage.cancel()
    stuck = [stage for stage in stages if not stage.join(timeout)]
    return not stuck


class Stopwatch:
    """Seconds of work in a thread, without those of waiting for its input."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds = 0.0
        self._clock = clock

    def _count(self, items: Iterable[T], sign: int) -> Iterator[T]:
        iterator = iter(items)
        while True:
            start = self._clock()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.seconds += sign * (self._clock() - start)
            yield item

    def work(self, items: Iterable[T]) -> Iterator[T]:
        """Count the time that each item takes to come."""
        return self._count(items, 1)

    def pause(self, items: Iterable[T]) -> Iterator[T]:
        """Leave out the time that each item takes to come (inside of ``work``)."""
        return self._count(items, -1)
