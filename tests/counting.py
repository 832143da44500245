"""Counting instead of clocks: what is done how often, and how much is there at once."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Largest(TorchDispatchMode):
    """The largest tensor made while it is entered, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.bytes = max(self.bytes, leaf.untyped_storage().nbytes())
        return result


@contextmanager
def calls() -> Iterator[Counter[str]]:
    """How often each function is called in this thread, Python's and C's, by its name."""
    counted: Counter[str] = Counter()

    def see(frame: Any, event: str, function: Any) -> None:
        if event == "call":
            counted[frame.f_code.co_name] += 1
        elif event == "c_call":
            counted[function.__name__] += 1

    sys.setprofile(see)
    try:
        yield counted
    finally:
        sys.setprofile(None)
