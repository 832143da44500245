"""Settings of a process's libraries, seen from a fresh one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import PROJECT

# Page faults of a block of 100 MiB that is freed and wanted again, ten times.
CODE = """
import resource
from src.core.tuning import tune_process
tune_process()
for turn in range(11):
    block = bytearray(b"1") * (100 * 2**20)
    del block
    if turn == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**environment: str) -> int:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**kept, **environment},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_memory_is_kept_unless_the_user_decides() -> None:
    pages = 10 * 100 * 2**20 // os.sysconf("SC_PAGE_SIZE")
    kept, returned = faults(), faults(MALLOC_ARENA_MAX="2")
    if returned < pages / 20:
        pytest.skip("this system has large pages, or a C library without thresholds")
    assert kept < returned / 5
