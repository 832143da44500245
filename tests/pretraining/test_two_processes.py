"""Two gloo processes give Meta's two-process numbers."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

from tests.pretraining import reference
from tests.pretraining.reference import CLOSE, needs_reference


def torchrun(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    command += ["--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=reference.root(), env=environment, capture_output=True, text=True, timeout=300
    )


@needs_reference
def test_targets_and_koleo_of_two_processes(tmp_path):
    done = torchrun("-m", "tests.pretraining.two_processes", str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    meta = reference.load()
    for rank in range(2):
        ours = np.load(tmp_path / f"rank{rank}.npz")
        for name in ("sk", "ibot_sk", "koleo", "koleo_grad"):
            np.testing.assert_allclose(ours[name], meta[f"two_rank{rank}_{name}"], **CLOSE)
