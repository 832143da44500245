"""Records that forked workers share instead of copying."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from src.core.structures import Geometry, Size
from src.data.common.loaders import Samples, valid_loader
from src.data.common.shared import SharedRecords
from src.data.labels.reader import LabelRecord


def records(count: int) -> list[LabelRecord]:
    return [LabelRecord(Path(f"/data/{i}.jpg"), (i % 3,)) for i in range(count)]


def test_packed_records_are_a_sequence_of_the_same():
    packed, plain = SharedRecords(records(5)), records(5)
    assert list(packed) == plain and len(packed) == 5
    assert packed[-1] == plain[-1] and packed[1:3] == plain[1:3]
    for beyond in (5, -6):
        with pytest.raises(IndexError):
            packed[beyond]
    assert list(SharedRecords([])) == []


def test_a_loader_holds_no_object_a_record():
    samples = Samples(records(1000), None, 0)  # type: ignore[arg-type]
    gc.collect()
    alive = [thing for thing in gc.get_objects() if isinstance(thing, LabelRecord)]
    assert len(samples) == 1000 and len(alive) < 10


class Frozen:
    """A transform that says how many objects the garbage collector leaves alone."""

    def load(self, record, seed):
        size = Size(4, 4)
        frozen = np.array(gc.get_freeze_count())
        return np.zeros((4, 4, 3), np.uint8), {"frozen": frozen}, Geometry(size, size)


def test_a_worker_never_looks_through_what_it_was_forked_from():
    loader = valid_loader(records(2), Frozen(), batch=2, workers=1)
    targets = next(iter(loader)).targets
    assert targets[0]["frozen"] > 10_000
