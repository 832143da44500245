"""Records that processes share."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


class SharedRecords(Sequence):
    """Records as one array of bytes, each made anew when it is asked for.

    Forked workers share an array's pages. Of Python objects every look at one writes its
    reference count, so that in time each worker has a copy of all.
    """

    def __init__(self, records: Iterable[Any]) -> None:
        parts = [pickle.dumps(record, pickle.HIGHEST_PROTOCOL) for record in records]
        self._ends = np.cumsum([0, *map(len, parts)])
        self._content = np.frombuffer(b"".join(parts), np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return pickle.loads(self._content[self._ends[index] : self._ends[index + 1]].data)
