"""Shared by all tests: where the real data is, and quiet, small-threaded libraries."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A shell's background job (nohup ... &) ignores Ctrl-C, and so would the processes of these tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

PROJECT = Path(__file__).resolve().parents[1]
SHARED = PROJECT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and parity figures beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("../shared (real data, parity figures) is not here")
    return SHARED
