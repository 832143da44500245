"""The tables of docs/pictures.md: one-shot masks and propagation on drawn scenes, random weights.

python -m benchmarks.oneshot
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.core.config import CommandSettings, option

log = logging.getLogger("benchmarks.oneshot")
RANDOM = {"weights": "none", "hub": "bundled", "device": "cpu"}


class OneShotTables(CommandSettings):
    """IoU of one-shot masks, J and F of propagated ones."""

    model_name: list[str] = option(["dinov3_vitt16", "dinov3_convnext_atto"], help="backbones")
    images: int = option(6, ge=1, help="scenes to find the object in")
    frames: int = option(20, ge=2, help="frames of the video")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from src.core import cli

    cli.run(lambda: measure(cli.parse(OneShotTables, argv, "python -m benchmarks.oneshot")))


def measure(options: OneShotTables) -> None:
    """Print a row a backbone and way of refining."""
    with tempfile.TemporaryDirectory() as folder:
        root = draw(Path(folder), options.images, options.frames)
        logging.getLogger("src").setLevel(logging.ERROR)
        for name in options.model_name:
            for refine in ("none", "grabcut"):
                log.info("%s, --refine %s: %s", name, refine, row(root, name, refine))


def row(root: Path, name: str, refine: str) -> str:
    """The figures of one backbone, in words."""
    from src.oneshot.masks import read_mask
    from src.oneshot.propagate import run_propagate
    from src.oneshot.segment import run_segment
    from src.oneshot.settings import PropagateOptions, SegmentOptions

    how = {"model_name": name, "refine": refine, **RANDOM}
    given = {"reference": [root / "r.png"], "mask": [root / "m.png"], "input": root / "in"}
    run_segment(SegmentOptions(**how, **given, imgsz=[480], out_dir=root / "found"))
    ious = []
    for truth in sorted((root / "masks").iterdir()):
        found = read_mask(root / "found" / f"{truth.stem}_mask.png", may_be_empty=True) > 0
        true = read_mask(truth) > 0
        ious.append((found & true).sum() / (found | true).sum())
    given = {
        "input": str(root / "frames"),
        "mask": root / "truth/00000.png",
        "truth": root / "truth",
    }
    run_propagate(PropagateOptions(**how, **given, imgsz=360, out_dir=root / "carried"))
    scores = json.loads((root / "carried" / "propagation.json").read_text())
    figures = " ".join(f"{key} {scores[key]:.3f}" for key in ("j", "f"))
    return f"one shot, IoU {np.min(ious):.2f} to {np.max(ious):.2f}; propagation, {figures}"


def draw(root: Path, images: int, frames: int) -> Path:
    """The reference and its mask, scenes with their masks, frames with theirs."""
    from src.data.common.images import write_image
    from src.data.masks.reader import write_mask
    from tests.oneshot.drawn import clip, scene

    for seed in range(images + 1):
        image, mask = scene(seed)
        write_image(root / (f"in/{seed}.png" if seed else "r.png"), image)
        write_mask(root / (f"masks/{seed}.png" if seed else "m.png"), mask)
    for number, (image, mask) in enumerate(zip(*clip(frames))):
        write_image(root / f"frames/{number:05}.png", image)
        write_mask(root / f"truth/{number:05}.png", mask)
    return root


if __name__ == "__main__":
    main()
