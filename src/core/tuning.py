"""What a process asks of its libraries before they are loaded; measured in docs/benchmarks.md."""

from __future__ import annotations

import ctypes
import os
import sys

KEPT_BYTES = 256 * 2**20
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def tune_process() -> None:
    """Short spins for libgomp's threads, and freed memory kept for the next step.

    libgomp's threads spin for long before they sleep, which starves the data workers and video
    threads of the same cores. glibc gives blocks above 32 MiB back to the system as soon as they
    are freed, so that every step of a training on the CPU gets its large tensors page by page
    anew. Environment variables of the user's (OMP_WAIT_POLICY, GOMP_SPINCOUNT, MALLOC_*) win.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    if sys.platform.startswith("linux") and not any(n.startswith("MALLOC_") for n in os.environ):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(_MMAP_THRESHOLD, KEPT_BYTES)
            mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
