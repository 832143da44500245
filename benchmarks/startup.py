"""Seconds of ``train_detection.py --help``, and from a command to its first training step.

    python -m benchmarks.startup [--model-name dinov3_convnext_tiny] [--imgsz 320] [--runs 5]

Each run is a process of its own, timed from its start; the best and the median of them count.
The child tells of its first optimizer step on its output, and is then ended. Data: a drawn set
(16 pictures); random weights.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from src.core.config import CommandSettings, option

log = logging.getLogger("benchmarks.startup")

ROOT = Path(__file__).resolve().parents[1]
STEP = "first training step done"


class StartupOptions(CommandSettings):
    """Seconds of --help, and from the command to the first training step."""

    model_name: str = option("dinov3_convnext_tiny", help="backbone (random weights)")
    head: str = option("retinanet", help="head")
    imgsz: int = option(320, ge=32, help="width and height of the model's input")
    batch: int = option(4, ge=1, help="images a step")
    workers: int = option(2, ge=0, help="processes that load data")
    runs: int = option(5, ge=1, help="how often each is timed")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; ``--child`` (internal) trains and tells of its first step."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["--child"]:
        return train_and_tell(arguments[1:])
    from src.core import cli

    return cli.run(lambda: measure(cli.parse(StartupOptions, argv, "python -m benchmarks.startup")))


def measure(options: StartupOptions) -> None:
    """Time both, and say so."""
    from src.data.drawn.boxes import draw_dataset

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the child is ended too
    helps = [seconds_of_help() for _ in range(options.runs)]
    log.info("train_detection.py --help: %s (wanted: under 1 s)", median_and_range(helps))
    with tempfile.TemporaryDirectory() as folder:
        draw_dataset(Path(folder) / "data", train=16, valid=4)
        flags = ["--config", "detection_configs/demo.yaml", "--data-root", f"{folder}/data"]
        flags += ["--model-name", options.model_name, "--head", options.head, "--weights", "none"]
        flags += ["--imgsz", str(options.imgsz), "--batch", str(options.batch), "--fine-tune"]
        flags += ["--workers", str(options.workers), "--epochs", "1", "--overwrite"]
        flags += ["--out-dir", f"{folder}/run"]
        steps = [seconds_to_first_step(flags) for _ in range(options.runs)]
    log.info(
        "from the command to the first training step: %s (wanted: under 20 s)",
        median_and_range(steps),
    )


def median_and_range(values: list[float]) -> str:
    """Best, median and worst of some seconds."""
    return f"best {min(values):.2f} s, median {median(values):.2f} s, worst {max(values):.2f} s"


def seconds_of_help() -> float:
    """One process of train_detection.py --help."""
    began = time.perf_counter()
    command = [sys.executable, "train_detection.py", "--help"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def seconds_to_first_step(flags: list[str]) -> float:
    """One training, up to the end of its first step; then it is ended, with its workers."""
    from src.core.errors import UserError

    command = [sys.executable, "-m", "benchmarks.startup", "--child", *flags]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    began = time.perf_counter()
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert child.stdout is not None
    said = []
    try:
        for line in child.stdout:
            if STEP in line:
                return time.perf_counter() - began
            said.append(line)
    finally:
        child.terminate()  # Ctrl-C's way: it saves and ends its workers
        child.communicate()
    raise UserError("training ended before its first step:\n" + "".join(said[-15:]))


def train_and_tell(flags: list[str]) -> None:
    """``train_detection.py`` with one more line, after the first optimizer step."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from src.detection.train import main as train

    def tell(*_: object) -> None:
        hook.remove()
        print(STEP, flush=True)

    hook = register_optimizer_step_post_hook(tell)
    train(flags)


if __name__ == "__main__":
    main()
