"""The Python of docs/python.md runs, on small drawn data and the smallest backbone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data.common.images import write_image
from src.data.drawn.boxes import draw_dataset
from src.data.drawn.depths import draw_depth_dataset

PROJECT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(
    r"## ([^\n]+)\n(?:(?!## ).)*?```python\n(.*?)```",
    (PROJECT / "docs" / "python.md").read_text(),
    re.DOTALL,
)
SMALL = {
    '"dinov3_vits16"': '"dinov3_convnext_atto"',
    '"pretrained"': '"none"',
    "epochs=20": "epochs=1, imgsz=[64, 64], batch=2, workers=0, device='cpu'",
}
PREFACE = "import sys\nimport src\nsys.modules['dino_stack'] = src\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What the page's snippets find in their folder."""
    root = tmp_path_factory.mktemp("python")
    noise = np.random.default_rng(0)
    for name in ("street.jpg", "yard.jpg"):
        write_image(root / name, noise.integers(0, 255, (80, 100, 3), np.uint8))
    draw_dataset(root / "boxes", 4, 2, seed=0)
    draw_depth_dataset(root / "depths", 3, 1, seed=0)
    for task, made in (("detection", "boxes"), ("depth", "depths")):
        text = (PROJECT / f"{task}_configs" / "demo.yaml").read_text()
        text = re.sub(r"DATA_ROOT: \S+", f"DATA_ROOT: {root / made}", text)
        (root / f"{made}.yaml").write_text(text.split("TRAIN:\n")[0])
    lines = [f"DATA_ROOT: {root / 'masks'}", "ALL_CLASSES: [dark, light]"]
    for split in ("train", "valid"):
        lines += [f"{split.upper()}_{part.upper()}: {split}/{part}" for part in ("images", "masks")]
        for number in range(4):
            picture = noise.integers(0, 255, (64, 64, 3), np.uint8)
            kind = root / "kinds" / split / f"class{number % 2}"
            folders = [root / "masks" / split / part for part in ("images", "masks")]
            for each in (kind, *folders):
                each.mkdir(parents=True, exist_ok=True)
            write_image(kind / f"{number}.png", picture)
            write_image(folders[0] / f"{number}.png", picture)
            Image.fromarray((picture[..., 0] > 127).astype(np.uint8)).save(
                folders[1] / f"{number}.png"
            )
    (root / "masks.yaml").write_text("\n".join(lines))
    return root


@pytest.mark.parametrize("code", [code for _, code in BLOCKS], ids=[name for name, _ in BLOCKS])
def test_snippet_runs(code, folder):
    for large, small in SMALL.items():
        code = code.replace(large, small)
    done = subprocess.run(
        [sys.executable, "-c", PREFACE + code],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_there_is_one_for_every_task():
    assert {"Detection", "Segmentation", "Classification", "Depth"} <= {name for name, _ in BLOCKS}
