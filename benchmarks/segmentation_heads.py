"""Every segmentation head under the same budget: mIoU after so many minutes, and at equal epochs.

    python -m benchmarks.segmentation_heads --data-root ../shared/data/camvid --minutes 5

Each run is ``train_segmentation.py`` in a process of its own, from random weights, evaluated after
each epoch, at a constant learning rate with an average of the weights (so that a run can be cut
anywhere), and stopped by Ctrl-C's signal when its minutes are over. They count from its first
training step, evaluations included, in processor time: 5 minutes are 10 of one core, so that other
work on the machine takes nothing away (Linux; elsewhere the clock is read). Runs that have a
history.csv are not repeated.
"""

from __future__ import annotations

import csv
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

from src.core.cli import parse, run
from src.core.config import CommandSettings, option
from src.core.paths import output_folder
from src.segmentation.settings import HEADS, Head

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[1]
CORES = 2
MODES: dict[str, list[str]] = {"frozen": [], "fine-tuned": ["--fine-tune"]}
FIXED = ["--weights", "none", "--schedule", "multistep", "--warmup-epochs", "0.5", "--ema", "0.99"]
FIXED += ["--clip", "5", "--weight-decay", "0.05", "--epochs", "1000", "--pictures", "0"]


class BenchmarkOptions(CommandSettings):
    """mIoU of each head in a fixed time."""

    config: Path = option(Path("segmentation_configs/camvid.yaml"), help="dataset YAML")
    data_root: Path = option(Path("../shared/data/camvid"), help="where its paths start")
    model_name: str = option("dinov3_convnext_atto", help="backbone (random weights)")
    heads: list[Head] = option(
        [head for head in HEADS if head != "eomt"], help="heads (eomt wants a ViT as --model-name)"
    )
    modes: list[Literal["frozen", "fine-tuned"]] = option(list(MODES), help="ways of training")
    minutes: float = option(5, gt=0, help="budget of a run")
    imgsz: list[int] = option([320, 240], help="width and height")
    batch: int = option(8, ge=1, help="images a step")
    lr: float = option(1e-3, gt=0, help="learning rate")
    channels: int = option(64, ge=16, help="--head-channels of all heads")
    augment: str = option("flip", help="augmentation preset")
    workers: int = option(1, ge=0, help="processes that load data")
    out_dir: Path = option(Path("segmentation_heads"), help="sub-folder of outputs/")


def train(options: BenchmarkOptions, head: str, mode: str) -> list[float]:
    """mIoU after each epoch of a run."""
    out = (output_folder(options.out_dir) / f"{mode}-{head}").resolve()
    history = out / "history.csv"
    if not history.exists():
        words = ["train_segmentation.py", "--config", options.config, "--out-dir", out]
        words += ["--data-root", options.data_root, "--model-name", options.model_name]
        words += ["--head", head, "--head-channels", options.channels, "--lr", options.lr]
        words += ["--imgsz", *options.imgsz, "--batch", options.batch, "--overwrite"]
        words += ["--workers", options.workers, "--augment", options.augment]
        command = [sys.executable, *map(str, words), *FIXED, *MODES[mode]]
        out.parent.mkdir(parents=True, exist_ok=True)
        stop_after(command, options.minutes * 60, out.parent / f"{out.name}.log")
    with history.open(encoding="utf-8") as file:
        return [float(row["mIoU"]) for row in csv.DictReader(file)]


def stop_after(command: list[str], seconds: float, log_file: Path) -> None:
    """Run a training for so long from its first step on; its words go to a file."""
    with log_file.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, preexec_fn=os.setpgrp
        )
        began = None
        while process.poll() is None:
            time.sleep(0.5)
            if began is None and "training on" in log_file.read_text(encoding="utf-8"):
                began = time_used(process.pid)
            if began is not None and time_used(process.pid) - began > seconds:
                process.send_signal(signal.SIGINT)
                process.wait(120)


def time_used(group: int) -> float:
    """Seconds that the processes of a group have had of CORES cores, or else the clock's."""
    ticks = 0
    if not Path("/proc").is_dir():
        return time.monotonic()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[2]) == group:  # user and system time, its own and of ended children
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK") / CORES


def table(found: dict[tuple[str, str], list[float]], modes: list[str]) -> str:
    """Markdown: a row a head; mIoU at the end (epochs), and at the epoch that all heads reached."""
    shared = {m: min(len(v) for (mode, _), v in found.items() if mode == m) for m in modes}
    columns = [c for m in modes for c in (f"{m}, at the end (epochs)", f"at epoch {shared[m]}")]
    lines = ["| head | " + " | ".join(columns) + " |", "| --- |" + " --: |" * len(columns)]
    for head in dict.fromkeys(head for _, head in found):
        cells = []
        for mode in modes:
            values = found[(mode, head)]
            cells.append(f"{values[-1]:.3f} ({len(values)})")
            cells.append(f"{values[shared[mode] - 1]:.3f}" if shared[mode] else "-")
        lines.append(f"| `{head}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Train all and print the table."""
    options = parse(BenchmarkOptions, None, "python -m benchmarks.segmentation_heads")
    found: dict[tuple[str, str], list[float]] = {}
    for mode in options.modes:
        for head in options.heads:
            found[(mode, head)] = train(options, head, mode)
            log.info("%s %s: %s", mode, head, " ".join(f"{v:.3f}" for v in found[(mode, head)]))
    text = table(found, list(options.modes))
    print(text)
    (output_folder(options.out_dir) / "table.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
