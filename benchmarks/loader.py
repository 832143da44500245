"""How many training images one core prepares a second, beside an earlier state of the project.

    git worktree add /tmp/before COMMIT
    python -m benchmarks.loader --images ../shared/data/bccd/JPEGImages [--before /tmp/before]

Each preset at 640x640 (``fit``), batch 16, no worker process: processor time from a file to a
batch, of each state in a process of its own, in turn; the best of some rounds counts (another
program's work on the core is no work of ours). An image gets twelve drawn boxes.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

from src.core import cli
from src.core.config import CommandSettings, option

log = logging.getLogger(__name__)
PRESETS = ("flip", "ssd", "strong")

# Runs in the root of either state; the packages' names are tried in turn.
DRIVER = """
import json, sys, time
from pathlib import Path
import cv2
import numpy as np
import torch
from src.core.structures import Size
from src.core.tuning import tune_process
try:
    from src.data.boxes.records import BoxRecord
    from src.data.boxes.transforms import box_transform
    from src.data.common.loaders import train_loader
except ImportError:
    from src.data.loaders import train_loader
    from src.data.records import BoxRecord
    from src.data.transforms import box_transform

tune_process()
cv2.setNumThreads(1)
torch.set_num_threads(1)
folder, preset, side = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
rng = np.random.default_rng(0)
records = []
for path in sorted(folder.iterdir()):
    height, width = cv2.imread(str(path)).shape[:2]
    low = rng.uniform(0, 0.7, (12, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.05, 0.3, (12, 2))], 1)
    boxes *= [width, height, width, height]
    flags = np.zeros(12, bool)
    records.append(BoxRecord(path, None, path.stem, boxes.astype(np.float32),
                             np.ones(12, np.int64), flags, flags, None))
loader = train_loader(
    records, box_transform(preset, Size(side, side), "fit"), batch=16, workers=0, seed=0
)
best = float("inf")
for epoch in range(4):
    loader.set_epoch(epoch % 2)
    start = time.process_time()
    for batch in loader:
        pass
    if epoch:
        best = min(best, time.process_time() - start)
print(json.dumps(len(records) / best))
"""


class LoaderSpeed(CommandSettings):
    """Training images a second that one core prepares."""

    images: Path = option(..., help="folder of pictures")
    before: Path | None = option(None, help="another checkout of the project, to compare with")
    count: int = option(64, ge=16, help="how many of the pictures")
    side: int = option(640, ge=32, help="width and height of the model's input")
    rounds: int = option(3, ge=1, help="how often; the best counts")


def measure(settings: LoaderSpeed) -> None:
    """Log a line a preset."""
    trees = {"now": Path.cwd()} | ({"before": settings.before} if settings.before else {})
    with tempfile.TemporaryDirectory() as folder:
        for preset in PRESETS:
            best = dict.fromkeys(trees, 0.0)
            for _ in range(settings.rounds):
                for name, tree in trees.items():
                    rate = run(tree, chosen(settings, folder), preset, settings.side)
                    best[name] = max(best[name], rate)
            said = ", ".join(f"{name} {rate:.0f}" for name, rate in best.items())
            ratio = f": {best['now'] / best['before']:.2f} times" if "before" in best else ""
            log.info("%-6s %s images/s%s", preset, said, ratio)


def chosen(settings: LoaderSpeed, folder: str) -> Path:
    """The first pictures of the folder, linked into one of their own."""
    links = Path(folder) / "images"
    if not links.exists():
        from src.data.common.images import list_images

        links.mkdir()
        for path in list_images(settings.images)[: settings.count]:
            (links / path.name).symlink_to(path.resolve())
    return links


def run(tree: Path, images: Path, preset: str, side: int) -> float:
    """Images a second of one state of the project."""
    command = [sys.executable, "-c", DRIVER, str(images), preset, str(side)]
    done = subprocess.run(command, cwd=tree, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    cli.run(lambda: measure(cli.parse(LoaderSpeed)))
