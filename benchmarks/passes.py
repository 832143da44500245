"""Backbone passes, their shapes and pixels in a training run, beside an earlier state.

    git worktree add /tmp/before COMMIT
    python -m benchmarks.passes --images ../shared/data/ants_bees [--before /tmp/before]

One epoch of train_detection.py with a frozen backbone: images from all over the folder are trained
on and validated, with one drawn box each, at 640x640 (``fit``), in batches of 16. Each state runs
its own command; the backbone's layers answer zeros, so only the passes are real.
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

# Runs in the root of either state.
DRIVER = """
import json, sys
from src.backbones.base import Backbone
from src.core.cli import parse
from src.detection.settings import TrainDetection
from src.detection.train import train
passes = []

def forward(self, x, *args, **kwargs):
    if x.shape[0] > 1 or max(x.shape[2:]) > 32:  # not the blank image that maps are filled with
        passes.append(x.shape)
    high, wide = x.shape[2:]
    return {name: x.new_zeros(len(x), one.channels, high // one.stride, wide // one.stride)
            for name, one in self.output_shape().items()}

Backbone.forward = forward
train(parse(TrainDetection, sys.argv[1:]))
print("PASSES", json.dumps(passes))
"""


class PassesOptions(CommandSettings):
    """Passes of the backbone in a run."""

    images: Path = option(Path("../shared/data/ants_bees"), help="folder of photographs")
    before: Path | None = option(None, help="root of another state of the project")
    count: int = option(64, ge=2, help="images to train on, and to validate")
    batch: int = option(16, ge=1, help="images a batch")
    imgsz: int = option(640, ge=32, help="side of the square")


def draw(options: PassesOptions, root: Path) -> list[str]:
    """A COCO file of the images with a box each; the words of the command that trains on them."""
    from src.data.common.images import read_image

    files = [path for path in sorted(options.images.rglob("*")) if path.is_file()]
    step = max(1, len(files) // options.count)
    images, boxes = [], []
    (root / "images").mkdir()
    for number, path in enumerate(files[::step][: options.count], start=1):
        height, width = read_image(path).shape[:2]
        name = f"{number}{path.suffix}"
        (root / "images" / name).symlink_to(path.resolve())
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        box = [width * 0.3, height * 0.3, width * 0.4, height * 0.4]
        boxes.append({"id": number, "image_id": number, "category_id": 1, "bbox": box})
        boxes[-1] |= {"area": box[2] * box[3], "iscrowd": 0}
    names = [{"id": 1, "name": "box"}]
    text = json.dumps({"images": images, "annotations": boxes, "categories": names})
    (root / "boxes.json").write_text(text)
    lines = ["FORMAT: coco", "CLASSES: [__background__, box]"]
    for part in ("TRAIN", "VALID"):
        lines += [f"{part}_IMG: {root / 'images'}", f"{part}_ANNOT: {root / 'boxes.json'}"]
    (root / "data.yaml").write_text("\n".join(lines) + "\n")
    words = f"--config {root / 'data.yaml'} --model-name dinov3_convnext_atto --weights none"
    words += " --head ssd --pyramid-channels 16 --epochs 1 --workers 0 --device cpu --skip-check"
    words += f" --resize fit --imgsz {options.imgsz} {options.imgsz} --batch {options.batch}"
    return words.split()


def passes(root: Path, words: list[str]) -> list[list[int]]:
    """[B, 3, H, W] of each pass of the state in ``root``."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *words],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("PASSES ")]
    assert found, done.stdout[-1000:] + done.stderr[-2000:]
    return json.loads(found[0].removeprefix("PASSES "))


def measure(options: PassesOptions) -> None:
    """Run each state with each preset, and print a table."""
    states = {"now": Path.cwd()}
    if options.before is not None:
        states = {"before": options.before.resolve(), **states}
    log.info("| augment | state | passes for %d images | shapes | pixels |", options.batch)
    log.info("|---|---|---|---|---|")
    for preset in ("none", "ssd"):
        for state, root in states.items():
            with tempfile.TemporaryDirectory() as name:
                words = [*draw(options, Path(name)), "--augment", preset]
                shapes = passes(root, [*words, "--out-dir", str(Path(name) / "run")])
            images = sum(shape[0] for shape in shapes)
            pixels = sum(shape[0] * shape[2] * shape[3] for shape in shapes)
            batches = 2 * -(-options.count // options.batch)
            kinds = len({tuple(shape[2:]) for shape in shapes})
            figures = f"{len(shapes) / batches:.1f} | {kinds} | {pixels // images}"
            log.info("| %s | %s | %s |", preset, state, figures)


def main() -> None:
    """The command."""
    cli.run(lambda: measure(cli.parse(PassesOptions, prog="python -m benchmarks.passes")))


if __name__ == "__main__":
    main()
