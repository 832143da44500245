"""Threads: bounded, stoppable, errors come out, nothing hangs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from src.predict.threads import Ahead, Stopwatch, stop_all


def test_order_and_end() -> None:
    assert list(Ahead(range(100), 3)) == list(range(100))


def test_an_error_comes_after_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield from range(5)
        raise ValueError("broken")

    seen = []
    with pytest.raises(ValueError, match="broken"):
        for item in Ahead(Ahead(source(), 2), 2):
            seen.append(item)
    assert seen == list(range(5))


def test_it_is_never_more_than_depth_ahead() -> None:
    made = []

    def source() -> Iterator[int]:
        for i in range(50):
            made.append(i)
            yield i

    stage = Ahead(source(), 3)
    for taken in range(1, 51):
        next(stage)
        assert len(made) <= taken + 3 + 1  # the queue, and the one in the producer's hand
    stop_all([stage])


def test_cancel_ends_a_waiting_chain_and_closes_the_source() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    first = Ahead(endless(), 2)
    second = Ahead((item for item in first), 2)
    assert next(second) == 1
    assert stop_all([first, second])
    assert closed.wait(5)
    assert list(second) == []


def test_cancel_wakes_a_consumer_that_waits() -> None:
    gate = threading.Event()

    def silent() -> Iterator[int]:
        gate.wait(20)
        yield 1

    stage = Ahead(silent(), 1)
    threading.Timer(0.1, stage.cancel).start()
    assert list(stage) == []
    assert not stop_all([stage], timeout=0.05)  # its thread is still stuck, and that is told
    gate.set()
    assert stop_all([stage])


def test_newest_drops_what_is_stale() -> None:
    done = threading.Event()

    def source() -> Iterator[int]:
        yield from range(20)
        done.set()

    stage = Ahead(source(), 1, newest=True)
    assert done.wait(5)  # nobody took anything, and it did not wait
    assert list(stage) == [19]


def test_the_stopwatch_counts_work_without_waiting() -> None:
    now = [0.0]
    watch = Stopwatch(lambda: now[0])

    def source() -> Iterator[int]:
        for i in range(3):
            now[0] += 5
            yield i

    def worker(items) -> Iterator[int]:
        for item in items:
            now[0] += 1
            yield item

    for _ in watch.work(worker(watch.pause(source()))):
        now[0] += 7
    assert now[0] == 39 and watch.seconds == 3
